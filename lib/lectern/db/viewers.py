"""Who may look at the page: each viewer has a token, of which only the digest is kept."""

import hashlib
import secrets
from collections.abc import Sequence

import sqlmodel
from sqlalchemy import Connection, delete, insert, select

from lectern.db.engine import rows_of
from lectern.errors import Misuse
from lectern.model.tables.teacher import ViewerRow, viewers


def make(connection: Connection, name: str, institution: str | None, now: float) -> str:
    """Let *name* look at the page; returns the token, shown only once. Raises Misuse if the name is taken."""
    if connection.execute(select(viewers.c.name).where(viewers.c.name == name)).one_or_none() is not None:
        raise Misuse(f"{name}: has a token already. Revoke it first: lectern viewer revoke {name}")
    token = secrets.token_urlsafe(24)
    values = {"name": name, "institution_id": institution, "digest": _digest(token), "made_at": now}
    connection.execute(insert(viewers).values(**values))
    return token


def revoke(connection: Connection, name: str) -> None:
    """Withdraw the token of *name*. Raises Misuse if there is no such viewer."""
    if not connection.execute(delete(viewers).where(viewers.c.name == name)).rowcount:
        raise Misuse(f"{name}: is no viewer. See: lectern viewer ls")


def everybody(connection: Connection) -> Sequence[ViewerRow]:
    """All viewers, by name."""
    return rows_of(connection, sqlmodel.select(ViewerRow).order_by(viewers.c.name))


def of_token(connection: Connection, token: str) -> ViewerRow | None:
    """The viewer with this token; the search is by digest, so that its duration reveals nothing of a token."""
    return next(iter(rows_of(connection, sqlmodel.select(ViewerRow).where(viewers.c.digest == _digest(token)))), None)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
