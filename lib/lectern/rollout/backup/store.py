"""The database of a host's role, whichever kind it is: a SQLite file, or one on a PostgreSQL server."""

from pathlib import Path

from sqlalchemy import make_url

from lectern.db.engine import refuse_closed
from lectern.rollout.backup.postgres import PostgresServer
from lectern.rollout.backup.sqlite import SqliteFile
from lectern.rollout.spec import Spec

Store = SqliteFile | PostgresServer


def at(url: str) -> Store:
    """The database that *url* names; raises Misuse for a file whose folder is missing, or closed to who asks."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        refuse_closed(parsed.database or "")
        return _file(Path(parsed.database or "").absolute())
    return PostgresServer(parsed.set(drivername="postgresql+psycopg"))


def of(wanted: Spec) -> Store:
    """The database that the program of *wanted* will work in: that of its settings, or the file of the inventory."""
    url = wanted.env.get(f"{wanted.role.upper()}_DATABASE_URL", "")
    return at(url) if url and not url.startswith("sqlite") else _file(wanted.database)


def _file(path: Path) -> SqliteFile:
    """The database at *path*; if that is a link, its target, beside which SQLite keeps its other files."""
    return SqliteFile(path.resolve() if path.is_symlink() else path)
