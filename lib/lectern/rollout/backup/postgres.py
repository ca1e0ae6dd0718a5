"""A database on a PostgreSQL server: copied, the copy proved by a restore, put back; PostgreSQL's programs do it."""

import asyncio
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from lectern import subprocesses
from lectern.errors import CallAPerson, Misuse, TryAgain
from lectern.i18n import Text, msgid
from lectern.rollout import files
from lectern.rollout.backup import Copy, quoted, rows, tables
from lectern.rollout.files import sha256

COPY_TIMEOUT_S = 3600.0
CONNECT_TIMEOUT_S = 20
ABANDONED_S = 86400.0
"""Seconds after which a scratch database counts as the leftover of a killed process, and is dropped."""
GONE_S = 5.0
"""Seconds within which the server forgets the session of a program that has just been stopped."""
DUMP = b"PGDMP"
"""With which the file of a dump begins."""
_SCRATCH = "lectern_scratch"
_PARAMETERS = {"host", "port", "database", "user", "password", "sslmode", "sslrootcert", "sslcert", "sslkey"}
_PARAMETERS |= {"target_session_attrs"}
"""Parameters of a connection that PostgreSQL's programs get, too, as ``PGHOST`` and so on."""


@dataclass(frozen=True)
class PostgresServer:
    """A database on a server of PostgreSQL's; several teachers may share it."""

    address: URL

    @property
    def url(self) -> str:
        """The database URL, in the form of the settings, with its password."""
        return self.address.render_as_string(hide_password=False)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters of a connection, as libpq names them; of several servers, the hosts and the ports in a row."""
        return self.address.get_dialect()().create_connect_args(self.address)[1]

    @property
    def shown(self) -> str:
        """The database's address in sentences, without user and password."""
        given = self.parameters
        port = f":{given['port']}" if "port" in given else ""
        return f"{given.get('host', 'local')}{port}/{self.address.database}"

    @property
    def needs_bytes(self) -> int:
        """Greatest room in bytes that a copy takes on this host's disk: the database's size on the server's."""
        with self.connected() as connection:
            return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())

    @property
    def files(self) -> list[Path]:
        """The database's files on this host's disk: none."""
        return []

    def exists(self) -> bool:
        """Whether the database has any table."""
        with self.reading() as connection:
            return bool(tables(connection))

    @contextmanager
    def connected(self, **options: Any) -> Iterator[Connection]:  # noqa: ANN401 (SQLAlchemy's own options)
        """A connection of its own; raises TryAgain if the server is away, Misuse or CallAPerson if it refuses."""
        engine = create_engine(
            self.address, poolclass=NullPool, hide_parameters=True, connect_args={"connect_timeout": CONNECT_TIMEOUT_S}
        )
        try:
            with engine.connect() as plain:
                yield plain.execution_options(**options) if options else plain
        except DBAPIError as error:
            words, user = " ".join(str(error.orig or error).split()), self.address.username
            if "permission denied to create database" in words:
                raise Misuse(
                    "{shown}: a backup is proved by a restore into a scratch database, and the user {user} may not "
                    "make one. Type on the server, as postgres: psql -c 'alter role {user} createdb'",
                    shown=self.shown,
                    user=user,
                ) from error
            kind = TryAgain if error.connection_invalidated or "connect" in words else CallAPerson
            refused = msgid("{shown}: PostgreSQL refused ({words}). Nothing was changed.")
            raise kind(Text(refused, shown=self.shown, words=words)) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees the database as it is at one instant, and changes nothing."""
        with self.connected(isolation_level="REPEATABLE READ", postgresql_readonly=True) as reader, reader.begin():
            yield reader

    def copy(self, folder: Path) -> Copy:
        """Dump it into *folder* as it is at one instant, while others write, and count its rows at the same instant.

        Raises TryAgain if the server is away, CallAPerson if pg_dump refuses.
        """
        target = folder / f"{self.address.database}.dump"
        files.make_private(target)
        dump = ["pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={target}"]
        with self.reading() as connection:
            snapshot = connection.execute(text("SELECT pg_export_snapshot()")).scalar_one()
            counted = rows(connection)
            self._run([*dump, f"--snapshot={snapshot}"])
        files.sync(target)
        self._run(["pg_restore", "--list", str(target)])
        return Copy(file=target.name, size_bytes=target.stat().st_size, sha256=sha256(target), rows=counted)

    def put_back(self, copied: Path, rows: dict[str, int], user: str) -> None:
        """Put *copied*, which has the tables of *rows*, in the database's place; Misuse if others work in it."""
        self.refuse_company()
        whole = ["--clean", "--if-exists", "--single-transaction", "--exit-on-error", "--no-owner"]
        self._run(["pg_restore", *whole, f"--dbname={self.address.database}", str(copied)])
        with self.connected() as connection, connection.begin():
            for name in tables(connection):
                if name not in rows:
                    connection.execute(text(f"DROP TABLE {quoted(name)} CASCADE"))

    @contextmanager
    def restored(self, copied: Path) -> Iterator[Connection]:
        """A scratch database on the same server with the content of *copied*; it is dropped at the end."""
        name = f"{_SCRATCH}_{time.time():.0f}_{secrets.token_hex(4)}"
        with self.connected(isolation_level="AUTOCOMMIT") as connection:
            _drop_abandoned(connection)
            connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE template0'))
        scratch = PostgresServer(self.address.set(database=name))
        try:
            whole = ["--exit-on-error", "--no-owner", "--no-privileges"]
            scratch._run(["pg_restore", *whole, f"--dbname={name}", str(copied)])
            with scratch.reading() as reader:
                yield reader
        finally:
            with self.connected(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))

    def refuse_company(self) -> None:
        """Raise Misuse if somebody else works in the database: another teacher would lose what it has just answered."""
        others = text(
            "SELECT DISTINCT coalesce(nullif(application_name, ''), client_addr::text, 'local') FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

        def look() -> list[str]:
            with self.connected() as connection:
                return sorted(map(str, connection.execute(others).scalars()))

        until = time.monotonic() + GONE_S
        while (names := look()) and time.monotonic() < until:
            time.sleep(0.1)
        if names:
            raise Misuse(
                "{shown}: others work in it ({names}), so it was not replaced. Stop every teacher that shares it, "
                "then run this again.",
                shown=self.shown,
                names=", ".join(names),
            )

    def _run(self, argv: list[str]) -> None:
        """Run one of PostgreSQL's programs; the password is in its environment, which only its own user can read."""
        given = {**self.parameters, "database": self.address.database}
        env = {f"PG{name.replace('_', '').upper()}": str(given[name]) for name in _PARAMETERS if given.get(name)}
        env |= {"PGCONNECT_TIMEOUT": str(CONNECT_TIMEOUT_S), "PGAPPNAME": "lectern backup"}
        try:
            done = asyncio.run(subprocesses.run(argv, timeout_s=COPY_TIMEOUT_S, env=env))
        except Misuse as error:
            raise Misuse(
                "{program} is not here. Install it: apt-get install postgresql-client", program=argv[0]
            ) from error
        if done.returncode != 0:
            first = next((line for line in done.errors.splitlines() if "error" in line.lower()), "")  # others follow
            why = first or done.errors.strip()[:300] or "no reason"
            raise CallAPerson(
                "{shown}: {program} failed ({why}). Nothing was changed.", shown=self.shown, program=argv[0], why=why
            )


def _drop_abandoned(connection: Connection) -> None:
    """Drop the scratch databases of killed processes; younger ones than ABANDONED_S may be in use."""
    named = text("SELECT datname FROM pg_database WHERE datname LIKE :like AND pg_get_userbyid(datdba) = current_user")
    for name in connection.execute(named, {"like": f"{_SCRATCH}\\_%"}).scalars().all():
        begun = name.removeprefix(f"{_SCRATCH}_").partition("_")[0]
        if begun.isdigit() and time.time() - int(begun) > ABANDONED_S:
            connection.execute(text(f'DROP DATABASE IF EXISTS "{name}"'))
