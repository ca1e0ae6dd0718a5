"""Copies of a SQLite database: made while others write to it, proved, and put back."""

import base64
import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, NullPool, create_engine
from sqlalchemy.exc import DBAPIError

from lectern.effects.rows import schema
from lectern.effects.rows.tables.engine import BUSY_TIMEOUT_S
from lectern.errors import CallAPerson, TryAgain
from lectern.rollout.host import durable

COPY_TIMEOUT_S = 600.0
SIDES = ("-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite keeps beside a database."""

Row = dict[str, Any]
"""A row of any table: its values by column, in types that JSON can hold."""


class Copy(BaseModel):
    """A proved copy: its size, its SHA-256, and the rows of each table."""

    model_config = ConfigDict(frozen=True)

    file: str
    size_bytes: int
    sha256: str
    rows: dict[str, int]


def opened(file: Path) -> sqlite3.Connection:
    """A connection that changes no row, and leaves no new file beside the database.

    Reading a quiet database in WAL mode makes files beside it that only a writer removes; and a database whose writer
    was killed in a rollback journal can only be read if it is opened for writing.
    """
    try:
        return schema.read_only(file, "ro" if _wal(file).exists() else "rw")
    except sqlite3.OperationalError as error:
        if not error.sqlite_errorname.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
            raise
        return schema.read_only(file, "rw")


def _wal(file: Path) -> Path:
    return file.with_name(f"{file.name}-wal")


@contextmanager
def traceless(file: Path) -> Iterator[None]:
    """Let others look at *file*; new files that they leave beside it are removed."""
    was_quiet = file.exists() and not _wal(file).exists()
    try:
        yield
    finally:
        if was_quiet and _wal(file).exists():
            schema.read_only(file, "rw").close()  # the last connection that can write removes them


@contextmanager
def reading(file: Path) -> Iterator[Connection]:
    """A SQLAlchemy connection like that of `opened`; if the file is missing, to an empty database."""
    engine = create_engine(
        "sqlite://",
        creator=lambda: opened(file) if file.exists() else sqlite3.connect(":memory:", isolation_level=None),
        poolclass=NullPool,
    )
    with _in_words(file), engine.connect() as connection:
        yield connection


@contextmanager
def _alone(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a copy that no other program uses: reading it leaves nothing beside the file."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)) as connection:
        yield connection


@contextmanager
def _in_words(file: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, DBAPIError) as error:
        if "locked" in str(error) or "busy" in str(error):
            raise TryAgain(
                f"{file}: another program has held it for {BUSY_TIMEOUT_S} s ({error}). Try again."
            ) from error
        raise CallAPerson(
            f"{file}: SQLite cannot read it ({error}). Nothing was changed. Is it the right file? If it is, see "
            f"what `sqlite3 {file} 'pragma integrity_check'` says."
        ) from error


_TABLES = "SELECT name FROM {}.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"


def rows(connection: sqlite3.Connection) -> dict[str, int]:
    """The number of rows of each table."""
    return {
        name: connection.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone()[0]  # noqa: S608 (quoted)
        for name in sorted(_tables(connection, "main"))
    }


def quoted(name: str) -> str:
    """*name* as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def sha256(file: Path) -> str:
    """The SHA-256 of all bytes of *file*."""
    with file.open("rb") as opened_file:
        return hashlib.file_digest(opened_file, "sha256").hexdigest()


def copy(source: Path, target: Path) -> Copy:
    """Copy a live database as it is at one instant, and prove the copy: SQLite finds it whole, its rows are counted.

    All pages are copied in one step: a copy in slices begins again at each write of another program, and never ends.
    Raises TryAgain if another program holds the database, CallAPerson if the database or its copy is damaged.
    """
    give_up_at = time.monotonic() + COPY_TIMEOUT_S

    def watch(_status: int, _remaining: int, _total: int) -> None:
        if time.monotonic() > give_up_at:
            raise TryAgain(
                f"{source}: not copied within {COPY_TIMEOUT_S:g} s. Look for what holds it (fuser {source})."
            )

    durable.make_private(target)
    with _in_words(source):
        with closing(opened(source)) as here, closing(sqlite3.connect(target, isolation_level=None)) as there:
            here.backup(there, pages=-1, progress=watch)
        with target.open("rb") as file:
            os.fsync(file.fileno())
        durable.sync_folder(target.parent)
    return proved(target)


def proved(file: Path) -> Copy:
    """See that *file* is a whole database; raises CallAPerson if it is not."""
    with _in_words(file), _alone(file) as connection:
        found = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
        if found != ["ok"]:
            raise CallAPerson(
                f"{file}: the copy is damaged, so the database is ({'; '.join(map(str, found))}). Nothing was changed. "
                f"Mend it by hand (sqlite3 ... .recover) before any rollout."
            )
        return Copy(file=file.name, size_bytes=file.stat().st_size, sha256=sha256(file), rows=rows(connection))


def try_restore(copied: Copy, folder: Path) -> None:
    """Restore *copied* into a scratch file beside it and compare; raises CallAPerson if they differ."""
    scratch = folder / f"{copied.file}.scratch"
    try:
        put_back(folder / copied.file, scratch, durable.PRIVATE)
        found = proved(scratch)
        if (found.sha256, found.rows) != (copied.sha256, copied.rows):
            raise CallAPerson(
                f"{folder / copied.file}: restored to try it, it has other rows ({found.rows}) than were copied "
                f"({copied.rows}). Does the disk keep what is written to it? Nothing was changed."
            )
    finally:
        scratch.unlink(missing_ok=True)


def put_back(copied: Path, database: Path, owner: durable.Owner) -> None:
    """Put the file *copied* in the place of *database*, which nobody may have open.

    The files beside the old database are removed first: SQLite would apply them to the new one.
    """
    part = database.with_name(f".{database.name}.part")
    part.unlink(missing_ok=True)
    made = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with copied.open("rb") as source, os.fdopen(made, "wb") as target:
        shutil.copyfileobj(source, target)
        target.flush()
        os.fsync(target.fileno())
    durable.give(part, owner)
    for side in SIDES:
        durable.remove(database.with_name(database.name + side))
    part.replace(database)
    durable.sync_folder(database.parent)


def rows_since(database: Path, copied: Path | None) -> dict[str, list[Row]]:
    """The rows of *database* that the copy lacks or has with other values: what a restore of the copy would lose."""
    with _in_words(database), closing(opened(database)) as connection:
        before: dict[str, list[str]] = {}
        if copied is not None:
            connection.execute("ATTACH ? AS copied", [f"{copied.as_uri()}?mode=ro&immutable=1"])
            before = {name: _columns(connection, "copied", name) for name in _tables(connection, "copied")}
        found: dict[str, list[Row]] = {}
        for table in _tables(connection, "main"):
            here = _columns(connection, "main", table)
            among = f"SELECT {', '.join(map(quoted, here))} FROM main.{quoted(table)} AS new"  # noqa: S608 (quoted)
            if table in before:
                same = " AND ".join(f"new.{quoted(one)} IS old.{quoted(one)}" for one in here if one in before[table])
                among += f" WHERE NOT EXISTS (SELECT 1 FROM copied.{quoted(table)} AS old WHERE {same or 1})"  # noqa: S608
            new = [dict(zip(here, map(jsonable, row), strict=True)) for row in connection.execute(among)]
            if new:
                found[table] = new
        return found


def _tables(connection: sqlite3.Connection, schema: str) -> list[str]:
    return [row[0] for row in connection.execute(_TABLES.format(schema))]


def _columns(connection: sqlite3.Connection, schema: str, table: str) -> list[str]:
    return [row[0] for row in connection.execute("SELECT name FROM pragma_table_xinfo(?, ?)", [table, schema])]


def jsonable(value: object) -> object:
    """*value* in a type that JSON can hold; bytes become ``{"base64": …}``."""
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
