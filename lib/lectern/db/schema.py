"""Brings a database's schema up to this code, says what that would change, or checks that it is done."""

import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, NullPool, create_engine, inspect, text
from sqlalchemy.exc import DBAPIError

from lectern import migrations
from lectern.db.engine import BUSY_TIMEOUT_S, close_to_others, file_of, open_or_empty, reader_of, transaction
from lectern.errors import CallAPerson, LecternError, Misuse, TryAgain
from lectern.i18n import Text, joined, labelled, msgid
from lectern.migrations.steps import shape
from lectern.model.tables.streamer import StreamerTable
from lectern.model.tables.teacher import TeacherTable
from lectern.states import Role

_TABLES: Mapping[Role, MetaData] = MappingProxyType(
    {"teacher": TeacherTable.metadata, "streamer": StreamerTable.metadata}
)
_REVISIONS = Path(migrations.__file__).parent
_NOT_THEIRS = "42501"
"""The SQLSTATE of PostgreSQL for a user that lacks a right."""

_LATE = {"57014", "55P03"}
"""The SQLSTATEs of PostgreSQL for a statement that waited too long, in all likelihood for another writer."""

_LOCK_TIMEOUT = "60s"
"""How long a migration on PostgreSQL waits for whoever works in a table: all others wait behind it."""

MARK = "oldest_reader"
"""A table with one row, for a migration that does not only add: the revision that a program must know at least."""

_ALEMBIC = threading.Lock()
"""Held during a migration, because Alembic keeps it in module globals."""


def upgrade(engine: Engine, role: Role) -> list[str]:
    """Bring *role*'s database up to this code; returns one sentence per change, none if nothing was to do.

    All of it is one transaction: after a kill at any point nothing has changed, and the next call does it. Raises
    TryAgain if another program holds the database, Misuse and CallAPerson if it is not what it should be.
    """
    with in_words(engine):
        _refuse_damage(engine)
        close_to_others(engine)
        with transaction(engine) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
                connection.execute(text("SET LOCAL statement_timeout = 0"))  # a large table takes minutes
            return _migrate(connection, role)


def plan(engine: Engine, role: Role) -> list[str]:
    """The sentences that `upgrade` would return; changes nothing, and raises what `upgrade` raises."""
    with in_words(engine):
        _refuse_damage(engine)
        with _rehearsal(engine, role) as connection:
            return _migrate(connection, role)


def check(engine: Engine, role: Role) -> None:
    """Raise Misuse or CallAPerson, in words, unless this code can work on the database as it is; changes nothing."""
    with in_words(engine):
        file = file_of(engine)
        if file is not None and not file.exists():
            raise Misuse(Text("there is no such database. Make it with `lectern init`, or set the database URL."))
        _refuse_damage(engine)
        with (reader_of(file) if file is not None else engine).connect() as connection:
            if _is_behind(connection, role, _script(role)):
                with _rehearsal(engine, role) as rehearsal:
                    _migrate(rehearsal, role)  # raises why that cannot be changed, if so
                raise Misuse("the database is behind this program. Run `lectern init {role}`.", role=role)
            _refuse_missing(connection, role)


def _script(role: Role) -> ScriptDirectory:
    return ScriptDirectory(str(_REVISIONS), version_locations=[str(_REVISIONS / role)])


def _migrate(connection: Connection, role: Role) -> list[str]:
    changed: list[str] = []
    script = _script(role)
    if _is_behind(connection, role, script):
        config = Config(attributes={"connection": connection, "said": changed})
        with _ALEMBIC, EnvironmentContext(config, script, fn=lambda at, _: script._upgrade_revs("head", at)):
            script.run_env()
        changed = changed or [Text("alembic_version: all was there already, and is now noted as done")]
    _refuse_missing(connection, role)
    return changed


def _is_behind(connection: Connection, role: Role, script: ScriptDirectory) -> bool:
    """Whether revisions wait; a database that a newer release wrote is not behind if this program can use it."""
    heads = script.get_heads()
    current = MigrationContext.configure(connection).get_current_heads()
    known = {revision.revision for revision in script.walk_revisions()}
    unknown = set(current) - known
    if len(current) > 1 or any(not revision_id.startswith(f"{role}_") for revision_id in unknown):
        raise CallAPerson(
            "its revision {revision} is none of the {role}'s: it is another role's database. Nothing was changed. "
            "Set the right database URL.",
            revision=", ".join(sorted(current)),
            role=role,
        )
    if not unknown:
        return list(current) != heads
    obstacles = _obstacles(connection, known, _TABLES[role])
    obstacles += [Text("there is no {missing}", missing=missing) for missing in _missing(connection, role)]
    if obstacles:
        raise CallAPerson(
            "a newer release wrote it (revision {revision}; this program knows revisions up to {known}), and "
            "{obstacles}. Nothing was changed. Install the newer release, or restore the backup that was made "
            "before it.",
            revision=current[0],
            known=heads[0],
            obstacles=joined(obstacles),
        )
    return False


def _obstacles(connection: Connection, known: Collection[str], tables: MetaData) -> list[str]:
    """Why a program that knows the revisions *known* cannot use this database, one reason each; none if it can."""
    obstacles: list[str] = []
    if shape(connection, MARK) is not None:
        needed = connection.execute(text(f"SELECT revision FROM {MARK}")).scalars().all()  # noqa: S608 (a constant)
        unread = msgid("only a program that knows revision {revision} can read it")
        obstacles += [Text(unread, revision=revision) for revision in needed if revision not in known]
    for table in tables.tables.values():
        there = shape(connection, table.name)
        needed = sorted(there.needed - set(table.columns.keys())) if there is not None else []
        no_value = msgid("{table}.{column} must have a value, and this program gives it none")
        obstacles += [Text(no_value, table=table.name, column=name) for name in needed]
    return obstacles


def _refuse_missing(connection: Connection, role: Role) -> None:
    if missing := _missing(connection, role):
        raise CallAPerson(
            "all was there once, but there is no {missing}: somebody took it away. Restore the backup; or, to have "
            "it made anew, type `drop table alembic_version;` into the database and run `lectern init`.",
            missing=", no ".join(missing),
        )


def _missing(connection: Connection, role: Role) -> list[str]:
    missing: list[str] = []
    for table in _TABLES[role].tables.values():
        there = shape(connection, table.name)
        if there is None:
            missing.append(f"table {table.name}")
            continue
        missing += [f"column {name} of {table.name}" for name in there.lacks(table.columns.keys())]
        key = table.primary_key.columns.keys()
        if not there.lacks(key) and frozenset(key) not in there.keys:
            missing.append(f"unique index on {table.name} ({', '.join(key)})")
    return missing


def _name(engine: Engine) -> str:
    return str(file_of(engine) or engine.url.render_as_string(hide_password=True))


def _refuse_damage(engine: Engine) -> None:
    file = file_of(engine)
    if file is None:
        return
    if file.is_dir():
        raise Misuse(Text("it is a folder; the database URL must name a file."))
    with closing(open_or_empty(file)) as connection:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise CallAPerson(_damaged(" ".join(verdict.split())))


@contextmanager
def _rehearsal(engine: Engine, role: Role) -> Iterator[Connection]:
    """A connection for trying changes: to a private copy of a SQLite file; else all is rolled back.

    On a server it has empty tables of its own in front of the others: a change locks a table until it is rolled back,
    and the teachers at work would wait for that. A comment waits for none of them, and only an owner may make one.
    """
    file = file_of(engine)
    if file is None:
        with engine.connect() as connection, connection.begin() as attempt:
            if connection.dialect.name == "postgresql" and _is_behind(connection, role, _script(role)):
                for table in filter(inspect(connection).has_table, _TABLES[role].tables):
                    connection.exec_driver_sql(f"COMMENT ON TABLE {table} IS NULL")
                    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {table} (LIKE {table} INCLUDING ALL)")
            yield connection
            attempt.rollback()
        return
    # The empty name is a temporary database: SQLite puts it on disk if it is too large for the memory.
    with closing(open_or_empty(file)) as source, closing(sqlite3.connect("", isolation_level=None)) as copy:
        source.backup(copy)
        with create_engine("sqlite://", creator=lambda: copy, poolclass=NullPool).connect() as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection


def _damaged(words: str) -> Text:
    return Text(
        "the file is damaged, or is no SQLite database ({words}). Nothing was changed. See that the database URL "
        "names the right file; if it does, restore the last backup.",
        words=words,
    )


@contextmanager
def in_words(engine: Engine) -> Iterator[None]:
    """Turn the driver's errors into ours, with the database's name before the text."""
    try:
        yield
    except (TryAgain, CallAPerson, Misuse, sqlite3.Error, DBAPIError) as error:
        found = error if isinstance(error, LecternError) else _translated(engine, getattr(error, "orig", None) or error)
        kind = next(one for one in (TryAgain, Misuse, CallAPerson) if isinstance(found, one))
        raise kind(labelled(_name(engine), found.message)) from error


def _translated(engine: Engine, cause: object) -> LecternError:
    words, state = str(cause), getattr(cause, "sqlstate", None)
    if state == _NOT_THEIRS:
        quoted = engine.dialect.identifier_preparer.quote
        return Misuse(
            "its user may not change it ({words}). Nothing was changed. As the server's superuser, type: ALTER "
            "DATABASE {database} OWNER TO {user}; and if its tables have another owner: REASSIGN OWNED BY that one "
            "TO {user};",
            words=words.partition("\n")[0],
            database=quoted(engine.url.database or "lectern"),
            user=quoted(engine.url.username or "lectern"),
        )
    if state in _LATE:
        return TryAgain("others write to it ({cause}). Nothing was changed. Run this again.", cause=words)
    if "locked" in words or "busy" in words:
        return TryAgain(
            "another program has been writing to it for {busy_s:g} s ({words}). Nothing was changed. "
            "Stop the old program (supervisorctl stop all), and run this again.",
            busy_s=BUSY_TIMEOUT_S,
            words=words,
        )
    if "malformed" in words or "not a database" in words:
        return CallAPerson(_damaged(words))
    if "readonly" in words or "unable to open" in words or "permission" in words.lower():
        text = msgid("it cannot be opened for writing ({words}). Run this as the user that owns the file.")
        return Misuse(text, words=words)
    return CallAPerson("the database refused ({words}). Nothing was changed.", words=words)
