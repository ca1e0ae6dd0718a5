"""Opens a database for a command: to read makes and changes no file; errors are in words, also for what is missing."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError

from lectern.effects.rows.tables.engine import BUSY_TIMEOUT_S, file_of, open_database, reading, transaction
from lectern.errors import LecternError, Misuse

INIT = "Make it with `lectern init`, or set the database URL; in which folder were you?"

_LACKS = ("no such table", "no such column")
_UNDEFINED = frozenset({"42P01", "42703"})
"""SQLSTATEs of PostgreSQL for a table and a column that are not there."""


def open_to_look(url: str, role: str) -> Engine:
    """An engine for *url* that only reads. Raises Misuse if there is no such database."""
    engine = open_database(url)
    file = file_of(engine)
    if file is None:
        return engine
    if not file.is_file():
        raise Misuse(f"{file}: the {role}'s database is not there. {INIT}")
    looks = create_engine("sqlite://", creator=lambda: _connected(file), poolclass=NullPool, hide_parameters=True)
    event.listen(looks, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return looks


def _connected(file: Path) -> sqlite3.Connection:
    """A connection that changes nothing; if it may write, it also deletes SQLite's side files when it closes."""
    try:
        return read_only(file, "rw")
    except sqlite3.Error:
        return read_only(file, "ro")


def read_only(file: Path, mode: Literal["ro", "rw"]) -> sqlite3.Connection:
    """A connection that changes no row; in *mode* ``rw`` it may take back what a killed writer left half done."""
    url = f"{file.as_uri()}?mode={mode}"
    connection = sqlite3.connect(url, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


@contextmanager
def looking(engine: Engine, role: str) -> Iterator[Connection]:
    """One transaction that only reads; raises LecternError, in words, if the database is not what it should be."""
    with _in_words(role, "read"), reading(engine) as connection:
        yield connection


@contextmanager
def writing(engine: Engine, role: str) -> Iterator[Connection]:
    """One transaction of a command that writes; raises LecternError, in words, as `looking` does."""
    with _in_words(role, "written"), transaction(engine) as connection:
        yield connection


@contextmanager
def _in_words(role: str, done: str) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        found, *_ = str(error.orig).splitlines() or [""]  # PostgreSQL adds the statement's line
        if found.startswith(_LACKS) or getattr(error.orig, "sqlstate", None) in _UNDEFINED:
            raise Misuse(f"this is no {role}'s database of this release ({found}). {INIT}") from error
        raise LecternError(f"the {role}'s database cannot be {done}: {found}") from error
