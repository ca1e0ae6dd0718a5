"""The database of a host's role, whichever kind it is: a SQLite file, or one on a PostgreSQL server."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, make_url

from lectern.effects.rows.tables.engine import open_database
from lectern.rollout.backup import database, postgres
from lectern.rollout.backup.database import Copy, Row
from lectern.rollout.host import durable
from lectern.rollout.wanted import Wanted


@dataclass(frozen=True)
class SqliteFile:
    """A SQLite database in a file."""

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
        return [self.file, *(self.file.with_name(self.file.name + side) for side in database.SIDES)]

    def exists(self) -> bool:
        """Whether the database exists."""
        return self.file.exists()

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection that changes nothing; if the database does not exist, to an empty one."""
        return database.reading(self.file)

    def untouched(self) -> AbstractContextManager[None]:
        """Let others look at the database, and remove the files that they leave beside it."""
        return database.traceless(self.file)

    def copy(self, folder: Path) -> Copy:
        """Make a proved copy of the database in *folder*, also while others write to it."""
        return database.copy(self.file, folder / self.file.name)

    def try_restore(self, copied: Copy, folder: Path) -> None:
        """Check that the copy in *folder* can be restored, and then has the same rows; raises CallAPerson if not."""
        database.try_restore(copied, folder)

    def is_copy(self, copied: Path) -> bool:
        """Whether the database equals *copied* to the byte."""
        return self.exists() and database.sha256(copied) == database.sha256(self.file)

    def rows_since(self, copied: Path | None) -> dict[str, list[Row]]:
        """The rows that a restore of *copied* would lose."""
        return database.rows_since(self.file, copied)

    def put_back(self, copied: Path, rows: dict[str, int], user: str) -> None:
        """Put *copied* in the database's place; an existing file keeps its owner, a new one belongs to *user*."""
        owner = durable.Owner.of(self.file) if self.exists() else durable.Owner.user(user, 0o640)
        database.put_back(copied, self.file, owner)

    def clear(self) -> None:
        """Delete the database."""
        for one in self.files:
            durable.remove(one)

    def give(self, user: str) -> None:
        """Give a database that root has just made to *user*."""
        durable.give(self.file, durable.Owner.user(user, 0o640))

    def sweep(self) -> None:
        """Remove what a crash has left of a restore."""
        durable.sweep(self.file)


@dataclass(frozen=True)
class PostgresServer:
    """A database on a server of PostgreSQL's; several teachers may share it."""

    address: URL

    @property
    def url(self) -> str:
        """The database URL, in the form of the settings, with its password."""
        return self.address.render_as_string(hide_password=False)

    @property
    def shown(self) -> str:
        """The database's name in sentences."""
        return postgres.shown(self.address)

    @property
    def needs_bytes(self) -> int:
        """Greatest room in bytes that a copy takes on this host's disk."""
        return postgres.size_bytes(self.address)

    @property
    def files(self) -> list[Path]:
        """The database's files on this host's disk: none."""
        return []

    def exists(self) -> bool:
        """Whether the database has any table."""
        with self.reading() as connection:
            return bool(postgres.tables(connection))

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection that changes nothing and sees all as it is at one instant."""
        return postgres.reading(self.address)

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Let others look at it: a server keeps no traces of that."""
        yield

    def copy(self, folder: Path) -> Copy:
        """A copy of it in *folder* as it is at one instant, also while others write."""
        return postgres.copy(self.address, folder / f"{self.address.database}.dump")

    def try_restore(self, copied: Copy, folder: Path) -> None:
        """Check that the copy in *folder* can be restored, and then has the same rows; raises CallAPerson if not."""
        postgres.try_restore(self.address, copied, folder)

    def is_copy(self, copied: Path) -> bool:
        """Whether the database equals *copied*: False, because only a restore would tell."""
        return False

    def rows_since(self, copied: Path | None) -> dict[str, list[Row]]:
        """The rows that a restore of *copied* would lose."""
        return postgres.rows_since(self.address, copied)

    def put_back(self, copied: Path, rows: dict[str, int], user: str) -> None:
        """Put *copied*, which has the tables of *rows*, in the database's place; refused while others use it."""
        postgres.put_back(self.address, copied)
        postgres.drop_tables(self.address, frozenset(rows))

    def clear(self) -> None:
        """Drop all tables of the database."""
        postgres.drop_tables(self.address)

    def give(self, user: str) -> None:
        """Do nothing: the user that made the tables owns them already."""

    def sweep(self) -> None:
        """Do nothing: a restore is one transaction, so a crash leaves nothing of it."""


Store = SqliteFile | PostgresServer


def at(url: str) -> Store:
    """The database that *url* names."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return SqliteFile(Path(parsed.database or "").absolute())
    return PostgresServer(parsed.set(drivername="postgresql+psycopg"))


def of(wanted: Wanted) -> Store:
    """The database that the program of *wanted* will work in: that of its settings, or the file of the inventory."""
    url = wanted.env.get(f"{wanted.role.upper()}_DATABASE_URL", "")
    return at(url) if url and not url.startswith("sqlite") else SqliteFile(wanted.database)


@contextmanager
def opened(found: Store) -> Iterator[Engine]:
    """An engine for the database, which is disposed of at the end."""
    engine = open_database(found.url)
    try:
        yield engine
    finally:
        engine.dispose()
