"""Databases with all their tables and nothing in them: the migrations make one of a role a session, others copy it."""

import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from sqlalchemy import Engine

from lectern.db import schema
from lectern.db.engine import open_database
from lectern.states import Role


@cache
def _made(role: Role) -> Path:
    folder = Path(mkdtemp(prefix="lectern-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / f"{role}.db"
    upgraded(f"sqlite:///{path}", role)
    return path


def database(role: Role, path: Path) -> Path:
    """A new database of *role* at *path*; SQLite keeps the rights and the mode of its log in the file."""
    shutil.copy(_made(role), path)
    return path


def opened(role: Role, path: Path) -> Engine:
    return open_database(f"sqlite:///{database(role, path)}")


def upgraded(url: str, role: Role) -> None:
    """Make the tables of *role* in the database at *url*, as `lectern init` does."""
    engine = open_database(url)
    schema.upgrade(engine, role)
    engine.dispose()
