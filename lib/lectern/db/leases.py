"""The rows of leases: at the teacher who may push what, at a streamer the session that it was given."""

import json
from collections.abc import Mapping, Sequence

import sqlmodel
from sqlalchemy import Connection, delete, insert, select, update

from lectern.effects.rows.tables.engine import rows_of
from lectern.model.tables.streamer import drains, leases
from lectern.model.tables.teacher import StreamerRow, moves

# -- the teacher's ---------------------------------------------------------------------------------------------------


def holders(connection: Connection) -> dict[str, StreamerRow]:
    """All streamers that ever held a lease, by name."""
    return {row.name: row for row in rows_of(connection, sqlmodel.select(StreamerRow))}


def holder(connection: Connection, name: str) -> StreamerRow:
    """The row of streamer *name*; without a session if it never held a lease."""
    return holders(connection).get(name) or StreamerRow(name=name)


def taken_from(connection: Connection, streamer: str) -> list[tuple[str, int]]:
    """(class_id, placement) of each class that was taken from *streamer*, the latest placement of each."""
    latest: dict[str, int] = {}
    wanted = select(moves.c.class_id, moves.c.placement).where(moves.c.streamer == streamer).order_by(moves.c.id)
    for row in connection.execute(wanted):
        latest[row.class_id] = row.placement
    return list(latest.items())


def refused_by(connection: Connection, class_ids: Sequence[str]) -> Mapping[str, set[str]]:
    """The streamers that have refused each of *class_ids*."""
    found: dict[str, set[str]] = {class_id: set() for class_id in class_ids}
    wanted = select(moves.c.class_id, moves.c.streamer).where(moves.c.class_id.in_(class_ids), moves.c.refused)
    for row in connection.execute(wanted):
        found[row.class_id].add(row.streamer)
    return found


def moved_from(connection: Connection, class_ids: Sequence[str]) -> Mapping[str, str]:
    """The streamer from which each of *class_ids* was last moved because it was lost or drained."""
    its = moves.c.class_id.in_(class_ids) & moves.c.refused.is_(False)
    wanted = select(moves.c.class_id, moves.c.streamer).where(its).order_by(moves.c.id)
    return {row.class_id: row.streamer for row in connection.execute(wanted)}


# -- the streamer's --------------------------------------------------------------------------------------------------


def session(connection: Connection, streamer: str) -> str | None:
    """The session that this streamer was given; None if it never had one."""
    found = connection.execute(select(leases.c.session).where(leases.c.streamer == streamer)).scalar_one_or_none()
    return None if found is None else str(found)


def hold(connection: Connection, streamer: str, session: str, now: float) -> None:
    """Note that this streamer was given *session*, and has read all that was sent before."""
    known = peers(connection, streamer)
    connection.execute(delete(leases).where(leases.c.streamer == streamer))
    connection.execute(insert(leases).values(streamer=streamer, session=session, granted_at=now))
    if known is not None:
        note_peers(connection, streamer, known)


def peers(connection: Connection, streamer: str) -> dict[str, str] | None:
    """The other streamers that this one asks, with their addresses; None if it has heard of none yet."""
    found = connection.execute(select(leases.c.peers).where(leases.c.streamer == streamer)).scalar_one_or_none()
    return None if found is None else dict(json.loads(found))


def note_peers(connection: Connection, streamer: str, known: Mapping[str, str]) -> None:
    """Note the other streamers that this one asks, *known* (address by name); it must hold a lease."""
    text = json.dumps(known)
    connection.execute(update(leases).where(leases.c.streamer == streamer).values(peers=text))


def drained_since(connection: Connection, streamer: str) -> float | None:
    """Since when this streamer is drained (epoch seconds); None if it is not."""
    found = connection.execute(select(drains.c.since).where(drains.c.streamer == streamer)).scalar_one_or_none()
    return None if found is None else float(found)


def drain(connection: Connection, streamer: str, since: float | None) -> None:
    """Note that this streamer is drained *since* then; an earlier time stays. None ends the drain."""
    if since is None:
        connection.execute(delete(drains).where(drains.c.streamer == streamer))
    elif drained_since(connection, streamer) is None:
        connection.execute(insert(drains).values(streamer=streamer, since=since))
