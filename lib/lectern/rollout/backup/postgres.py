"""Copies of a PostgreSQL database, proved by a restore, and put back; PostgreSQL's own programs do the work."""

import asyncio
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, NullPool, create_engine, inspect, text
from sqlalchemy.exc import DBAPIError

from lectern.effects import process
from lectern.errors import CallAPerson, Misuse, TryAgain
from lectern.rollout.backup import database
from lectern.rollout.backup.database import Copy, Row
from lectern.rollout.host import durable

COPY_TIMEOUT_S = 3600.0
CONNECT_TIMEOUT_S = 20
ABANDONED_S = 86400.0
"""Seconds after which a scratch database counts as the leftover of a killed process, and is dropped."""
_SCRATCH = "lectern_scratch"
_SETTINGS = {
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "host": "PGHOST",
    "port": "PGPORT",
}
"""Parameters that a database URL may have in its query, and their environment variables for PostgreSQL's programs."""


def shown(url: URL) -> str:
    """The database's address for people, without user and password."""
    return f"{url.host or url.query.get('host', 'local')}/{url.database}"


@contextmanager
def connected(url: URL, **options: Any) -> Iterator[Connection]:  # noqa: ANN401 (SQLAlchemy's own options)
    """A connection of its own; raises TryAgain if the server is away, Misuse or CallAPerson if it refuses."""
    engine = create_engine(
        url, poolclass=NullPool, hide_parameters=True, connect_args={"connect_timeout": CONNECT_TIMEOUT_S}
    )
    with _in_words(url), engine.connect() as plain:
        yield plain.execution_options(**options) if options else plain


@contextmanager
def reading(url: URL) -> Iterator[Connection]:
    """A connection that sees the database as it is at one instant, and changes nothing."""
    with (
        connected(url, isolation_level="REPEATABLE READ", postgresql_readonly=True) as connection,
        connection.begin(),
    ):
        yield connection


@contextmanager
def _in_words(url: URL) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        found = " ".join(str(error.orig or error).split())
        if "permission denied to create database" in found:
            raise Misuse(
                f"{shown(url)}: a backup is proved by a restore into a scratch database, and the user {url.username} "
                f"may not make one. Type on the server, as postgres: psql -c 'alter role {url.username} createdb'"
            ) from error
        kind = TryAgain if error.connection_invalidated or "connect" in found else CallAPerson
        raise kind(f"{shown(url)}: PostgreSQL refused ({found}). Nothing was changed.") from error


def tables(connection: Connection) -> list[str]:
    """The names of the database's tables."""
    return sorted(inspect(connection).get_table_names())


def rows(connection: Connection) -> dict[str, int]:
    """The number of rows of each table."""
    counts = {name: text(f"SELECT count(*) FROM {database.quoted(name)}") for name in tables(connection)}  # noqa: S608
    return {name: connection.execute(count).scalar_one() for name, count in counts.items()}


def size_bytes(url: URL) -> int:
    """Size of the database on the server's disk, in bytes; a copy is smaller."""
    with connected(url) as connection:
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())


def copy(url: URL, target: Path) -> Copy:
    """Dump the database as it is at one instant, while others write, and count its rows at the same instant.

    Raises TryAgain if the server is away, CallAPerson if pg_dump refuses.
    """
    durable.make_private(target)
    with reading(url) as connection:
        snapshot = connection.execute(text("SELECT pg_export_snapshot()")).scalar_one()
        counted = rows(connection)
        _run(
            url,
            ["pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}"],
            f"--file={target}",
        )
    with target.open("rb") as file:
        os.fsync(file.fileno())
    durable.sync_folder(target.parent)
    _run(url, ["pg_restore", "--list"], str(target))
    return Copy(file=target.name, size_bytes=target.stat().st_size, sha256=database.sha256(target), rows=counted)


def try_restore(url: URL, copied: Copy, folder: Path) -> None:
    """Restore *copied* into a scratch database and compare the rows; raises CallAPerson if they differ."""
    with scratch(url, folder / copied.file) as restored, reading(restored) as connection:
        found = rows(connection)
    if found != copied.rows:
        raise CallAPerson(
            f"{folder / copied.file}: restored to try it, it has other rows ({found}) than were copied "
            f"({copied.rows}). Nothing was changed. Look at the server's log and its disk."
        )


@contextmanager
def scratch(url: URL, file: Path) -> Iterator[URL]:
    """A scratch database on the same server with the content of *file*; it is dropped at the end."""
    restored = url.set(database=f"{_SCRATCH}_{time.time():.0f}_{secrets.token_hex(4)}")
    with connected(url, isolation_level="AUTOCOMMIT") as connection:
        _drop_abandoned(connection)
        connection.execute(text(f'CREATE DATABASE "{restored.database}" TEMPLATE template0'))
    try:
        _run(restored, ["pg_restore", "--exit-on-error", "--no-owner", "--no-privileges"], str(file), into=True)
        yield restored
    finally:
        with connected(url, isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f'DROP DATABASE IF EXISTS "{restored.database}" WITH (FORCE)'))


def _drop_abandoned(connection: Connection) -> None:
    """Drop the scratch databases of killed processes; younger ones than ABANDONED_S may be in use."""
    named = text("SELECT datname FROM pg_database WHERE datname LIKE :like AND pg_get_userbyid(datdba) = current_user")
    for name in connection.execute(named, {"like": f"{_SCRATCH}\\_%"}).scalars().all():
        begun = name.removeprefix(f"{_SCRATCH}_").partition("_")[0]
        if begun.isdigit() and time.time() - int(begun) > ABANDONED_S:
            connection.execute(text(f'DROP DATABASE IF EXISTS "{name}"'))


def rows_since(url: URL, file: Path | None) -> dict[str, list[Row]]:
    """The rows that the copy lacks or has with other values: what a restore of the copy would lose."""
    before: dict[str, frozenset[str]] = {}
    if file is not None:
        with scratch(url, file) as restored, reading(restored) as connection:
            before = {name: frozenset(map(_written, _all(connection, name))) for name in tables(connection)}
    with reading(url) as connection:
        found = {
            name: [row for row in _all(connection, name) if _written(row) not in before.get(name, ())]
            for name in tables(connection)
        }
    return {name: new for name, new in found.items() if new}


def _all(connection: Connection, table: str) -> Iterator[Row]:
    told = connection.execute(text(f"SELECT * FROM {database.quoted(table)}"))  # noqa: S608 (quoted)
    for row in told.mappings():
        yield {name: database.jsonable(value) for name, value in row.items()}


def _written(row: Row) -> str:
    return json.dumps(row, sort_keys=True, default=str)


def put_back(url: URL, file: Path) -> None:
    """Replace the database by the copy; raises Misuse if another program is connected to the database."""
    refuse_company(url)
    _run(
        url,
        ["pg_restore", "--clean", "--if-exists", "--single-transaction", "--exit-on-error", "--no-owner"],
        str(file),
        into=True,
    )


def drop_tables(url: URL, but: frozenset[str] = frozenset()) -> None:
    """Drop all tables except *but*; raises Misuse if another program is connected to the database."""
    refuse_company(url)
    with connected(url) as connection, connection.begin():
        for name in tables(connection):
            if name not in but:
                connection.execute(text(f"DROP TABLE {database.quoted(name)} CASCADE"))


def refuse_company(url: URL) -> None:
    """Raise Misuse if somebody else works in the database: another teacher would lose what it has just answered."""
    with connected(url) as connection:
        others = connection.execute(
            text(
                "SELECT DISTINCT coalesce(nullif(application_name, ''), client_addr::text, 'local') FROM "
                "pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND "
                "backend_type = 'client backend'"
            )
        )
        names = sorted(str(one) for one in others.scalars())
    if names:
        raise Misuse(
            f"{shown(url)}: others work in it ({', '.join(names)}), so it was not replaced. Stop every teacher that "
            f"shares it, then run this again."
        )


def _run(url: URL, argv: list[str], *files: str, into: bool = False) -> None:
    """Run one of PostgreSQL's programs; the password is in its environment, which only its own user can read."""
    given: dict[str, object] = {
        "PGHOST": url.host,
        "PGPORT": url.port,
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
        "PGCONNECT_TIMEOUT": CONNECT_TIMEOUT_S,
        "PGAPPNAME": "lectern backup",
    }
    given |= {variable: url.query[name] for name, variable in _SETTINGS.items() if name in url.query}
    env = {name: str(value) for name, value in given.items() if value is not None}
    words = [*argv, *([f"--dbname={url.database}"] if into else []), *files]
    try:
        done = asyncio.run(process.run(words, timeout_s=COPY_TIMEOUT_S, env=env))
    except Misuse as error:
        raise Misuse(f"{argv[0]} is not here. Install it: apt-get install postgresql-client") from error
    if done.returncode != 0:
        raise CallAPerson(f"{shown(url)}: {argv[0]} failed ({_first(done.errors)}). Nothing was changed.")


def _first(errors: str) -> str:
    """The program's first complaint, from which the others follow."""
    return next((line for line in errors.splitlines() if "error" in line.lower()), errors.strip()[:300] or "no reason")
