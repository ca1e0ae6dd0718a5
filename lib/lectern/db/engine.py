"""Opens a database, a SQLite file or one on PostgreSQL, and runs one transaction at a time in it."""

import hashlib
import json
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from typing import Any, Literal, TypeVar

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    ExceptionContext,
    Integer,
    NullPool,
    Select,
    Table,
    bindparam,
    create_engine,
    event,
    insert,
    make_url,
    text,
    update,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from lectern.errors import LecternError, Misuse
from lectern.i18n import Text, msgid

# Opens a PostgreSQL database: which URLs are accepted, the limits of its sessions, and which errors pass.


DRIVER = "postgresql+psycopg"
FORM = msgid("postgresql://host/lectern, with user and password before the host")
MOST_OF_A_NAME = 63
"""Number of characters that the server keeps of a session's application name."""

SESSIONS = 10
"""Number of connections of a process: one for each of its threads for transactions, and two more."""

LIMITS: Mapping[str, int] = {
    "idle_in_transaction_session_timeout": 10_000,  # a teacher that stands still in a transaction stops the others
    "statement_timeout": 60_000,
    "tcp_user_timeout": 15_000,
    "tcp_keepalives_idle": 5,
    "tcp_keepalives_interval": 3,
    "tcp_keepalives_count": 3,
}
"""The limits after which the server ends a session, in milliseconds; those of keepalives are in seconds."""

CLIENT: Mapping[str, int] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""The limits at our end of a session, by which we notice within 15 s that a server is gone."""

_PASSING = frozenset({"25P03", "25P04", "25006"})
"""SQLSTATEs that pass, but that the driver calls faults of the program: an ended session, a read-only copy."""


def program_of(host: str) -> str:
    """The application name of the sessions of *host*, its own, or that of a command if *host* is empty."""
    name = f"lectern {host}".strip()
    if len(name) <= MOST_OF_A_NAME:
        return name
    return f"{name[: MOST_OF_A_NAME - 17]} {hashlib.sha256(name.encode()).hexdigest()[:16]}"


def open_server(url: URL, host: str) -> Engine:
    """An engine of *host* for *url*. A command, which is no host, keeps no session after a transaction.

    Raises Misuse if the URL names another kind of database or another driver, or if our driver is not installed.
    """
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        raise Misuse(
            "{kind}: lectern keeps no rows there. Write sqlite:///teacher.db or {form}",
            kind=url.get_backend_name(),
            form=FORM,
        )
    if url.drivername not in {"postgresql", "postgres", DRIVER}:
        raise Misuse(
            "{driver}: lectern does not use this driver of PostgreSQL. Write {form}", driver=url.drivername, form=FORM
        )
    if not url.database:
        raise Misuse("The database URL names no database. Write {form}", form=FORM)
    theirs = url.query.get("options", "")
    options = [f"-c {name}={value}" for name, value in LIMITS.items()]
    options += [theirs] if isinstance(theirs, str) else theirs  # the last option wins
    pool = {"pool_pre_ping": True, "pool_size": SESSIONS, "max_overflow": 0} if host else {"poolclass": NullPool}
    try:
        engine = create_engine(
            url.set(drivername=DRIVER),
            isolation_level="READ COMMITTED",  # each statement after the writers' lock sees all that was committed
            **pool,
            hide_parameters=True,
            connect_args={**CLIENT, "application_name": program_of(host), "options": " ".join(options).strip()},
        )
    except ImportError as error:
        raise Misuse(
            'The driver of PostgreSQL is not installed ({error}). Type: pip install "lectern[postgresql]"', error=error
        ) from error
    event.listen(engine, "connect", _spare_odd_texts)
    event.listen(engine, "handle_error", _pass)
    return engine


def _spare_odd_texts(connection: Any, _record: object) -> None:  # noqa: ANN401 (the driver may not be installed)
    """Replace characters that PostgreSQL's texts cannot hold, such as NUL, by a sign: programs may print anything."""
    from psycopg.types.string import StrDumper  # noqa: PLC0415 (an extra: it is there when this is called)

    class Dumper(StrDumper):
        def dump(self, obj: str) -> bytes:
            return obj.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace")

    connection.adapters.register_dumper(str, Dumper)


def _pass(context: ExceptionContext) -> None:
    """Raise an error that passes by itself as an OperationalError, after which all callers retry."""
    error = context.original_exception
    if getattr(error, "sqlstate", None) in _PASSING and not isinstance(context.sqlalchemy_exception, OperationalError):
        raise OperationalError(context.statement, None, error, connection_invalidated=context.is_disconnect) from error


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
        raise Misuse("The database URL is none. Write for example sqlite:///teacher.db or {form}", form=FORM) from None
    if parsed.get_backend_name() != "sqlite":
        return open_server(parsed, host)
    if parsed.database:
        refuse_closed(parsed.database)
    # An error's text goes into logs and to the UI; what a statement carries (push URLs, payloads) is not for them.
    engine = create_engine(
        url, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}, hide_parameters=True
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: SqliteConnection, _record: Any) -> None:  # noqa: ANN401 (SQLAlchemy's own type)
        # The driver would begin transactions late and end them before DDL; we begin them ourselves.
        connection.isolation_level = None
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get(READS, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def refuse_closed(database: str) -> None:
    """Raise Misuse if the folder of the SQLite file *database* is missing, or closed to who types a command."""
    file, has_folder = Path(database).absolute(), False
    try:
        has_folder = file.parent.is_dir()
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise Misuse("{path}: cannot be read: {reason}", path=file, reason=error.strerror) from error
    if not has_folder:
        raise Misuse("{database}: its folder does not exist. Make it, or set the database URL.", database=database)


def _write_ahead(connection: SqliteConnection) -> None:
    """Give an old program's file its write-ahead log: SQLite fails at once, here, if another program writes."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


@contextmanager
def opened(url: str) -> Iterator[Engine]:
    """An engine for the database of *url*, as `open_database` makes it, which is disposed of at the end.

    SQLite then moves what was written from its log into the file.
    """
    engine = open_database(url)
    try:
        yield engine
    finally:
        engine.dispose()


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
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        # The file is missing, belongs to another user, or its disk takes nothing, which the next write reports.
        with suppress(OSError):
            mode = stat.S_IMODE(file.stat().st_mode)
            if mode & stat.S_IRWXO:
                file.chmod(mode & ~stat.S_IRWXO)


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
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that only reads: it waits for no writer, and a disk that cannot be written does not stop it."""
    with engine.connect() as plain:
        snapshot = _SNAPSHOT if plain.dialect.name == "postgresql" else {}
        connection = plain.execution_options(**{READS: True}, **snapshot)
        with connection.begin():
            yield connection


def rows_of(connection: Connection, wanted: Select[T]) -> list[T]:
    """The rows that *wanted* selects, as values: nothing that is set in one of them is written to the database."""
    with Session(connection) as session:
        return list(session.scalars(wanted))


# Opens a database for a command: to read makes and changes no file; errors are in words, also for what is missing.


INIT = msgid("Make it with `lectern init`, or set the database URL; in which folder were you?")

_LACKS = ("no such table", "no such column")
_UNDEFINED = frozenset({"42P01", "42703"})
"""SQLSTATEs of PostgreSQL for a table and a column that are not there."""


class NoDatabase(Misuse):
    """There is no such database on this host."""


def open_to_look(url: str, role: str) -> Engine:
    """An engine for *url* that only reads. Raises NoDatabase if there is none, Misuse if the URL is wrong."""
    engine = open_database(url)
    file = file_of(engine)
    if file is None:
        return engine
    if not file.is_file():
        raise NoDatabase(Text("{file}: the {role}'s database is not there. {init}", file=file, role=role, init=INIT))
    looks = reader_of(file)
    event.listen(looks, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return looks


def reader_of(file: Path) -> Engine:
    """An engine that changes nothing of the SQLite database in *file*; of an empty one if there is no such file."""
    return create_engine("sqlite://", creator=lambda: open_or_empty(file), poolclass=NullPool, hide_parameters=True)


def open_or_empty(file: Path) -> sqlite3.Connection:
    """A connection to *file* that changes nothing; to an empty database if there is no such file."""
    return open_to_read(file) if file.exists() else sqlite3.connect(":memory:", isolation_level=None)


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


def open_to_read(file: Path) -> sqlite3.Connection:
    """A connection that changes no row, and leaves no new file beside the database.

    Reading a quiet database in WAL mode makes files beside it that only a writer removes; and a database whose writer
    was killed in a rollback journal can only be read if it is opened for writing.
    """
    try:
        return read_only(file, "ro" if file.with_name(f"{file.name}-wal").exists() else "rw")
    except sqlite3.OperationalError as error:
        if not error.sqlite_errorname.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
            raise
        return read_only(file, "rw")


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
        words, *_ = str(error.orig).splitlines() or [""]  # PostgreSQL adds the statement's line
        if words.startswith(_LACKS) or getattr(error.orig, "sqlstate", None) in _UNDEFINED:
            raise Misuse(
                "this is no {role}'s database of this release ({words}). {init}", role=role, words=words, init=INIT
            ) from error
        raise LecternError(
            "the {role}'s database cannot be {done}: {words}", role=role, done=done, words=words
        ) from error


_MARKS = {"qmark": "?", "format": "%s", "pyformat": "%s"}


class _Values(FunctionElement[Any]):
    """The values of a JSON list."""

    inherit_cache = True
    name = "json_values"
    type_on_postgresql = "TEXT"


class _Numbers(_Values):
    inherit_cache = True
    type_on_postgresql = "BIGINT"


@compiles(_Values, "sqlite")
def _on_sqlite(element: _Values, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 (SQLAlchemy's own)
    return f"(SELECT value FROM json_each({compiler.process(element.clauses, **options)}))"  # noqa: S608 (a placeholder)


@compiles(_Values, "postgresql")
def _on_postgresql(element: _Values, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 (SQLAlchemy's own)
    given = compiler.process(element.clauses, **options)
    kind = element.type_on_postgresql
    return f"(SELECT CAST(value AS {kind}) FROM json_array_elements_text(CAST({given} AS JSON)))"  # noqa: S608 (a placeholder)


def in_list(column: ColumnElement[Any], name: str = "among") -> ColumnElement[bool]:
    """Whether *column* is one of the list that the parameter *name* holds, as `bind_list` makes it."""
    values = _Numbers if isinstance(column.type, Integer) else _Values
    return column.bool_op("IN")(values(bindparam(name)))


def bind_list(values: Iterable[object], name: str = "among") -> dict[str, str]:
    """Numbers or texts, as the parameter *name* of a statement with `in_list`; NUL as `_spare_odd_texts` keeps it."""
    return {name: json.dumps(list(values)).replace("\\u0000", "\\u2400")}


def insert_many(
    connection: Connection, table: Table, names: tuple[str, ...], rows: Sequence[tuple[object, ...]]
) -> None:
    """Insert *rows*, each with its values in the order of *names*; every other column gets the database's default."""
    if rows:
        marks = ", ".join([_MARKS[connection.dialect.paramstyle]] * len(names))
        text = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})"  # noqa: S608 (our own columns)
        connection.exec_driver_sql(text, list(rows))


def put_row(connection: Connection, table: Table, key: Mapping[str, object], **values: object) -> None:
    """Write *values* into the row *key* of *table*; insert it if there is none."""
    mine = update(table).where(*(table.c[name] == value for name, value in key.items()))
    if not connection.execute(mine.values(**values)).rowcount:
        connection.execute(insert(table).values(**key, **values))


def update_many(
    connection: Connection,
    table: Table,
    which: tuple[tuple[str, ...], tuple[str, ...]],
    names: tuple[str, ...],
    rows: Sequence[tuple[object, ...]],
) -> int:
    """Write *rows*, each with its values in the order of *names*, and the values of *which*.

    *which* are the columns of the key, and columns that may be NULL. To a column whose name has a plus before it, the
    value is added, never to less than 0. Returns the number of rows that were there.
    """
    if not rows:
        return 0
    mark = _MARKS[connection.dialect.paramstyle]
    most = "MAX" if mark == "?" else "GREATEST"
    values = ", ".join(
        f"{name[1:]} = {most}(0, COALESCE({name[1:]}, 0) + {mark})" if name[0] == "+" else f"{name} = {mark}"
        for name in names
    )
    text = f"UPDATE {table.name} SET {values} WHERE {_those(which, mark)}"  # noqa: S608 (our own columns)
    return connection.exec_driver_sql(text, list(rows)).rowcount


def delete_many(
    connection: Connection,
    table: Table,
    which: tuple[tuple[str, ...], tuple[str, ...]],
    rows: Sequence[tuple[object, ...]],
) -> int:
    """Delete *rows*, each the values of *which*, see `update_many`. Returns the number of rows that were there."""
    text = f"DELETE FROM {table.name} WHERE {_those(which, _MARKS[connection.dialect.paramstyle])}"  # noqa: S608 (our own columns)
    return connection.exec_driver_sql(text, list(rows)).rowcount


def _those(which: tuple[tuple[str, ...], tuple[str, ...]], mark: str) -> str:
    key, others = which
    same = "IS" if mark == "?" else "IS NOT DISTINCT FROM"
    return " AND ".join([*(f"{name} = {mark}" for name in key), *(f"{name} {same} {mark}" for name in others)])
