"""A SQLite database in a file: copied while others write to it, the copy proved, and put back."""

import shutil
import sqlite3
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, NullPool, create_engine
from sqlalchemy.exc import DBAPIError

from lectern.db.engine import BUSY_TIMEOUT_S, open_to_read, reader_of, reading
from lectern.errors import CallAPerson, Misuse, TryAgain
from lectern.rollout import files
from lectern.rollout.backup import Copy, opened, quoted, rows
from lectern.rollout.files import sha256

Row = dict[str, Any]
"""A row of any table: its values by column, in types that JSON can hold."""

COPY_TIMEOUT_S = 600.0
SIDES = ("-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite keeps beside a database."""


@dataclass(frozen=True)
class SqliteFile:
    """A SQLite database; it need not exist."""

    file: Path

    @property
    def url(self) -> str:
        """The database URL, in the form of the settings."""
        return f"sqlite:///{self.file}"

    @property
    def shown(self) -> str:
        """The database's name in sentences."""
        return str(self.file)

    @property
    def needs_bytes(self) -> int:
        """Greatest room in bytes that a copy takes on this host's disk."""
        return self.file.stat().st_size if self.file.exists() else 0

    @property
    def files(self) -> list[Path]:
        """The database's files on this host's disk."""
        return [self.file, *(self.file.with_name(self.file.name + side) for side in SIDES)]

    def exists(self) -> bool:
        """Whether the database exists."""
        return self.file.exists()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that changes nothing; if the file is missing, to an empty database."""
        with _in_words(self.file), reader_of(self.file).connect() as connection:
            yield connection

    def copy(self, folder: Path) -> Copy:
        """Copy it into *folder* as it is at one instant, also while others write, and prove the copy.

        All pages are copied in one step: a copy in slices begins again at each write of another program, and never
        ends. Raises TryAgain if another program holds the database, CallAPerson if it or its copy is damaged.
        """
        give_up_at = time.monotonic() + COPY_TIMEOUT_S

        def watch(_status: int, _remaining: int, _total: int) -> None:
            if time.monotonic() > give_up_at:
                raise TryAgain(
                    "{file}: not copied within {copy_timeout_s:g} s. Look for what holds it (fuser {file}).",
                    file=self.file,
                    copy_timeout_s=COPY_TIMEOUT_S,
                )

        target = folder / self.file.name
        files.make_private(target)
        with _in_words(self.file):
            with (
                closing(open_to_read(self.file)) as here,
                closing(sqlite3.connect(target, isolation_level=None)) as there,
            ):
                here.backup(there, pages=-1, progress=watch)
            files.sync(target)
        return proved(target)

    @contextmanager
    def restored(self, copied: Path) -> Iterator[Connection]:
        """A scratch database with the content of *copied*, beside that, opened as the program does; it is deleted."""
        scratch = SqliteFile(copied.with_name(".restored.db"))
        try:
            _put(copied, scratch.file, files.PRIVATE)
            with opened(scratch.url) as engine, _in_words(scratch.file), reading(engine) as connection:
                yield connection
        finally:
            scratch.clear()

    def rows_since(self, copied: Path | None) -> Iterator[tuple[str, Row]]:
        """Each row, with its table, that the copy lacks or has with other values: what a restore would lose."""
        with _in_words(self.file), closing(open_to_read(self.file)) as connection:
            place = ":memory:" if copied is None else f"{copied.as_uri()}?mode=ro&immutable=1"
            connection.execute("ATTACH ? AS copied", [place])
            named = "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~'"
            for (name,) in connection.execute(named).fetchall():
                yield from ((name, row) for row in _new(connection, name))

    def refuse_company(self) -> None:
        """Raise Misuse if another program has the database open: it would go on writing into the file that is gone."""
        if not self.exists():
            return
        try:
            with closing(sqlite3.connect(self.file, timeout=0, isolation_level=None)) as alone:
                alone.execute("PRAGMA locking_mode=EXCLUSIVE")
                alone.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:  # a damaged one is nobody's, and is replaced
            if "locked" in str(error):
                raise Misuse(
                    "{file}: another program has it open, so it was not replaced. Stop that program (fuser "
                    "{file}), then run this again.",
                    file=self.file,
                ) from error

    def put_back(self, copied: Path, rows: dict[str, int], user: str) -> None:
        """Put *copied* in the database's place; an existing file keeps its owner, a new one belongs to *user*."""
        _put(copied, self.file, files.Owner.of(self.file) if self.exists() else files.Owner.user(user, 0o640))

    def keep_aside(self) -> Path:
        """Give the database a second name, which it keeps when another takes its place; returns that."""
        aside = files.free(self.file.with_name(f"{self.file.name}.damaged"))
        for file in filter(Path.exists, self.files):
            aside.with_name(file.name.replace(self.file.name, aside.name, 1)).hardlink_to(file)
        files.sync(aside.parent)
        return aside

    def clear(self) -> None:
        """Delete the database."""
        for file in self.files:
            files.remove(file)


def proved(file: Path) -> Copy:
    """See that the copy *file*, which no other program uses, is a whole database; raises CallAPerson if it is not."""
    alone = f"{file.as_uri()}?mode=ro&immutable=1"  # reading it leaves nothing beside the file
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(alone, uri=True), poolclass=NullPool)
    with _in_words(file), engine.connect() as connection:
        words = connection.exec_driver_sql("PRAGMA integrity_check(3)").scalars().all()
        if words != ["ok"]:
            raise CallAPerson(
                "{file}: the copy is damaged, so the database is ({why}). Nothing was changed. Mend it by hand "
                "(sqlite3 ... .recover) before any rollout.",
                file=file,
                why="; ".join(map(str, words)),
            )
        return Copy(file=file.name, size_bytes=file.stat().st_size, sha256=sha256(file), rows=rows(connection))


def _put(copied: Path, file: Path, owner: files.Owner) -> None:
    """Put *copied* in the place of the database *file*, which nobody may have open.

    The files beside the old database are removed first: SQLite would apply them to the new one.
    """
    with files.replaced(file) as part:
        shutil.copyfile(copied, part)
        files.give(part, owner)
        files.sync(part)
        for side in SIDES:
            files.remove(file.with_name(file.name + side))


def _new(connection: sqlite3.Connection, table: str) -> Iterator[Row]:
    """The rows of *table* that the attached copy lacks: all of them if it has no such table."""
    named = "SELECT name FROM pragma_table_xinfo(?, ?)"
    here, before = ([row[0] for row in connection.execute(named, [table, schema])] for schema in ("main", "copied"))
    among = f"SELECT {', '.join(map(quoted, here))} FROM main.{quoted(table)} AS new"  # noqa: S608 (quoted)
    if before:
        same = " AND ".join(f"new.{quoted(column)} IS old.{quoted(column)}" for column in here if column in before)
        among += f" WHERE NOT EXISTS (SELECT 1 FROM copied.{quoted(table)} AS old WHERE {same or 1})"  # noqa: S608
    for row in connection.execute(among):
        pairs = zip(here, row, strict=True)
        yield {name: {"base64": b64encode(it).decode()} if isinstance(it, bytes) else it for name, it in pairs}


@contextmanager
def _in_words(file: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, DBAPIError) as error:
        why = getattr(error, "orig", error)  # SQLAlchemy adds the statement, and an address on the web
        if "locked" in str(why) or "busy" in str(why):
            raise TryAgain(
                "{file}: another program has held it for {busy_timeout_s} s ({why}). Try again.",
                file=file,
                busy_timeout_s=BUSY_TIMEOUT_S,
                why=why,
            ) from error
        raise CallAPerson(
            "{file}: SQLite cannot read it ({why}). Nothing was changed. Is it the right file? If it is, see what "
            "`sqlite3 {file} 'pragma integrity_check'` says.",
            file=file,
            why=why,
        ) from error
