"""Viewers of the page and clients of the HTTP API: each has a token with rights, of which only the digest is kept."""

import hashlib
import secrets
from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select

from lectern.db.engine import rows_of
from lectern.errors import Misuse
from lectern.model.tables.teacher import ViewerRow, viewers
from lectern.states import Right


def make(connection: Connection, name: str, institution: str | None, now: float, may: str = Right.LOOK) -> str:
    """Make a token with which *name* *may* do this; returns it, shown only once. Raises Misuse if the name is taken."""
    taken = connection.execute(select(viewers.c.may).where(viewers.c.name == name)).scalar_one_or_none()
    if taken is not None:
        raise Misuse(
            "{name}: has a token already. Revoke it first: lectern {command} revoke {name}",
            name=name,
            command=_command(taken),
        )
    token = secrets.token_urlsafe(24)
    values = {"name": name, "institution_id": institution, "digest": _digest(token), "made_at": now, "may": may}
    connection.execute(insert(viewers).values(**values))
    return token


def revoke(connection: Connection, name: str, *, looks: bool = True) -> None:
    """Withdraw the token of *name*, who *looks* at the page or is a client. Raises Misuse if there is none."""
    mine = (viewers.c.name == name) & ((viewers.c.may == Right.LOOK) == looks)
    if not connection.execute(delete(viewers).where(mine)).rowcount:
        command = _command(Right.LOOK if looks else "")
        raise Misuse("{name}: is no {command}. See: lectern {command} ls", name=name, command=command)


def everybody(connection: Connection, *, looks: bool = True) -> Sequence[ViewerRow]:
    """All viewers of the page, by name, or all clients."""
    wanted = select(ViewerRow).where((viewers.c.may == Right.LOOK) == looks)
    return rows_of(connection, wanted.order_by(viewers.c.name))


def of_token(connection: Connection, token: str) -> ViewerRow | None:
    """The viewer or client with this token, found by its digest: the time it takes reveals nothing of a token."""
    return next(iter(rows_of(connection, select(ViewerRow).where(viewers.c.digest == _digest(token)))), None)


def _command(may: str) -> str:
    return "viewer" if may == Right.LOOK else "client"


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
