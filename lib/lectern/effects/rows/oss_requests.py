"""The teacher's requests to the OSS: their owners, their leases, and whether each was made."""

from collections.abc import Sequence

from sqlalchemy import Connection, func, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from lectern.effects.rows import renditions, transcodings
from lectern.effects.rows.transcodings import lease
from lectern.facts import RenditionKey
from lectern.model.tables.teacher import RenditionRow, videos
from lectern.states import Backend


def open_among(
    connection: Connection, keys: Sequence[RenditionKey], owner: str, now: float
) -> list[tuple[RenditionKey, int]]:
    """The renditions among *keys*, with their attempts, that are to be requested, and that no other owner has taken."""
    free = renditions.among(keys) & _unasked() & _free(now, owner)
    columns = (videos.c.record_id, videos.c.resolution, videos.c.attempt)
    rows = connection.execute(select(*columns).where(free))
    return [((row.record_id, row.resolution), int(row.attempt)) for row in rows]


def take(
    connection: Connection, keys: Sequence[RenditionKey], owner: str, lease_s: float, now: float
) -> list[tuple[RenditionKey, int]]:
    """Lease, for *lease_s*, the open requests among *keys* to *owner*; returns them."""
    found = open_among(connection, keys, owner, now)
    lease(connection, renditions.among([key for key, _ in found]), owner, now + lease_s)
    return found


def keep(connection: Connection, owner: str, lease_s: float, now: float) -> None:
    """Renew, for *lease_s* more, the leases of all requests that *owner* has not made yet."""
    lease(connection, _unasked() & (videos.c.owner == owner), owner, now + lease_s)


def may_ask(connection: Connection, key: RenditionKey, attempt: int, owner: str, until: float) -> bool:
    """Whether *owner* is still to ask for *attempt* of *key*; if so, its lease goes on until *until*."""
    mine = renditions.among([key]) & _unasked() & (videos.c.attempt == attempt) & (videos.c.owner == owner)
    return lease(connection, mine, owner, until) == 1


def asked(connection: Connection, key: RenditionKey, attempt: int, now: float, deadline: float) -> bool:
    """Note that the OSS took the request for *attempt*, with its *deadline*; False if the attempt is over meanwhile."""
    mine = renditions.among([key]) & renditions.transcoding(Backend.OSS) & (videos.c.attempt == attempt)
    values = {"requested_at": now, "deadline": deadline, "owner": None, "lease_until": None}
    return connection.execute(update(videos).where(mine).values(**values)).rowcount == 1


def forgotten(connection: Connection, before: float, now: float) -> list[RenditionRow]:
    """The OSS transcodings begun before *before* that were never requested, and that nobody is about to request."""
    return transcodings.where(connection, _unasked() & (videos.c.updated_at < before) & _free(now))


def last_taken(connection: Connection) -> float | None:
    """When the OSS last took a request (epoch seconds); None if it never did."""
    found: float | None = connection.execute(select(func.max(videos.c.requested_at))).scalar_one()
    return found


def owned_by(name: str, run: str) -> str:
    """The owner of the requests that a *run* of the teacher *name* is to make."""
    return f"{name}/{run}"


def owners(connection: Connection) -> set[str]:
    """The names of the teachers that have requests to make."""
    found = connection.execute(select(videos.c.owner).where(_unasked() & videos.c.owner.is_not(None)).distinct())
    return {str(one).rpartition("/")[0] for one in found.scalars()}


def free(connection: Connection, name: str) -> int:
    """Release the requests that the dead teacher *name* was to make, for any other teacher; returns their number."""
    its = _unasked() & videos.c.owner.startswith(owned_by(name, ""), autoescape=True)
    return connection.execute(update(videos).where(its).values(owner=None, lease_until=None)).rowcount


def _unasked() -> ColumnElement[bool]:
    return renditions.transcoding(Backend.OSS) & videos.c.requested_at.is_(None)


def _free(now: float, owner: str = "") -> ColumnElement[bool]:
    return or_(videos.c.owner.is_(None), videos.c.owner == owner, videos.c.lease_until < now)
