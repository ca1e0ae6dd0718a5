"""Who may look at the page: each viewer has a token, of which only the digest is kept."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from lectern.errors import Misuse
from lectern.model.tables.teacher import viewers


@dataclass(frozen=True)
class Viewer:
    """Somebody who may look at the page; *institution* is None for a viewer who sees all classes."""

    name: str
    institution: str | None
    made_at: float


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


def everybody(connection: Connection) -> Sequence[Viewer]:
    """All viewers, by name."""
    columns = (viewers.c.name, viewers.c.institution_id, viewers.c.made_at)
    return [Viewer(*row) for row in connection.execute(select(*columns).order_by(viewers.c.name))]


def of_token(connection: Connection, token: str) -> Viewer | None:
    """The viewer with this token; the search is by digest, so that its duration reveals nothing of a token."""
    columns = (viewers.c.name, viewers.c.institution_id, viewers.c.made_at)
    row = connection.execute(select(*columns).where(viewers.c.digest == _digest(token))).one_or_none()
    return None if row is None else Viewer(*row)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
