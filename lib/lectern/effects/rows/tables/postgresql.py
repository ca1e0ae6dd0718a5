"""Opens a PostgreSQL database: which URLs are accepted, the limits of its sessions, and which errors pass."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL, Engine, ExceptionContext, NullPool, create_engine, event
from sqlalchemy.exc import OperationalError

from lectern.errors import Misuse

DRIVER = "postgresql+psycopg"
FORM = "postgresql://host/lectern, with user and password before the host"
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
    """The application name of the sessions of *host*, or of a command if *host* is empty."""
    return f"lectern {host}".strip()[:MOST_OF_A_NAME]


def open_server(url: URL, host: str) -> Engine:
    """An engine of *host* for *url*. A command, which is no host, keeps no session after a transaction.

    Raises Misuse if the URL names another kind of database or another driver, or if our driver is not installed.
    """
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        raise Misuse(f"{url.get_backend_name()}: lectern keeps no rows there. Write sqlite:///teacher.db or {FORM}")
    if url.drivername not in {"postgresql", "postgres", DRIVER}:
        raise Misuse(f"{url.drivername}: lectern does not use this driver of PostgreSQL. Write {FORM}")
    if not url.database:
        raise Misuse(f"The database URL names no database. Write {FORM}")
    theirs = url.query.get("options", "")
    options = [f"-c {name}={value}" for name, value in LIMITS.items()]
    options += [theirs] if isinstance(theirs, str) else theirs  # the last option wins
    kept = {"pool_pre_ping": True, "pool_size": SESSIONS, "max_overflow": 0} if host else {"poolclass": NullPool}
    try:
        engine = create_engine(
            url.set(drivername=DRIVER),
            isolation_level="READ COMMITTED",  # each statement after the writers' lock sees all that was committed
            **kept,
            hide_parameters=True,
            connect_args={**CLIENT, "application_name": program_of(host), "options": " ".join(options).strip()},
        )
    except ImportError as error:
        raise Misuse(
            f'The driver of PostgreSQL is not installed ({error}). Type: pip install "lectern[postgresql]"'
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
