"""Opens a database and runs one transaction at a time in it."""

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError
from sqlmodel import Session
from sqlmodel.sql.expression import SelectOfScalar

from lectern.effects.rows.tables.postgresql import FORM, open_server
from lectern.errors import Misuse

BUSY_TIMEOUT_S = 20
CHECKPOINT_PAGES = 4000
"""Number of 4 KiB pages that SQLite gathers in its log before it writes and syncs them into the database: with SQLite's
own default of 1000, one transaction in eighty of a large cache waited for it."""

READS = "lectern_reads"
WRITERS = 7365
"""The advisory lock that each writing transaction of a PostgreSQL database takes first."""

_SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
_WRITING = threading.Lock()
T = TypeVar("T")


def open_database(url: str, host: str = "") -> Engine:
    """An engine for *url*: PostgreSQL, or SQLite in WAL mode, synchronous, that waits up to 20 s for other programs.

    The rights of a file stay as they are (see `close_to_others`): who only looks changes nothing. On PostgreSQL
    the sessions bear the name *host*. Raises Misuse if the URL is wrong or its folder is missing.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        raise Misuse(f"The database URL is none. Write for example sqlite:///teacher.db or {FORM}") from None
    if parsed.get_backend_name() != "sqlite":
        return open_server(parsed, host)
    if parsed.database and not Path(parsed.database).absolute().parent.is_dir():
        raise Misuse(f"{parsed.database}: its folder does not exist. Make it, or set the database URL.")
    # An error's text goes into logs and to the UI; what a statement carries (push URLs, payloads) is not for them.
    engine = create_engine(
        url, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}, hide_parameters=True
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: SqliteConnection, _record: Any) -> None:  # noqa: ANN401 (SQLAlchemy's own type)
        # The driver would begin transactions late and end them before DDL; we begin them ourselves.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get(READS, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def file_of(engine: Engine) -> Path | None:
    """The file of a SQLite database; None for a database in memory, and for a server."""
    database = engine.url.database
    if engine.dialect.name != "sqlite" or not database or database.startswith((":memory:", "file:")):
        return None
    return Path(database).absolute()


def close_to_others(engine: Engine) -> None:
    """Make a new SQLite file accessible to its owner alone; take the rights of all others from an existing file.

    Call it before the first transaction of a program that migrates or serves. The database holds push URLs with their
    keys. The owner and the group of a file that an older program made stay as they are, and so does what the group may
    do: that program can read it after a rollback. SQLite makes its other files alike.
    """
    file = file_of(engine)
    if file is None:
        return
    path = file.resolve()
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    except OSError:
        return  # SQLite's own error says what is wrong
    for one in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        # The file is missing, belongs to another user, or its disk takes nothing, which the next write reports.
        with suppress(OSError):
            mode = stat.S_IMODE(one.stat().st_mode)
            if mode & stat.S_IRWXO:
                one.chmod(mode & ~stat.S_IRWXO)


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One writing transaction: committed at the end, rolled back on any exception.

    It is the only writer, in SQLite by BEGIN IMMEDIATE, in PostgreSQL by the lock of all writers: what was read in it
    stays true until the commit. Our own lock keeps our threads from SQLite's busy wait, which sleeps longer than a
    transaction takes.
    """
    with _WRITING, engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": WRITERS})
        yield connection


@contextmanager
def own_rows(engine: Engine) -> Iterator[Connection]:
    """One transaction on a server that writes only rows that nobody else writes: it waits for no other writer."""
    with engine.begin() as connection:
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that only reads: it waits for no writer, and a disk that cannot be written does not stop it."""
    with engine.connect() as plain:
        snapshot = _SNAPSHOT if plain.dialect.name == "postgresql" else {}
        connection = plain.execution_options(**{READS: True}, **snapshot)
        with connection.begin():
            yield connection


def rows_of(connection: Connection, wanted: SelectOfScalar[T]) -> list[T]:
    """The rows that *wanted* selects, as values: nothing that is set in one of them is written to the database."""
    with Session(connection) as session:
        return list(session.exec(wanted))
