"""The rows of leases, of the teachers that share a database, and of their duties."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence

from sqlalchemy import Connection, delete, insert, select, text, union, update

from lectern.db import transcodings
from lectern.db.engine import WRITERS, bind_list, in_list, program_of, put_row, rows_of
from lectern.db.inbox import UNSHOWN, inbox
from lectern.db.outbox import outbox
from lectern.model.tables.streamer import drains, leases
from lectern.model.tables.teacher import StreamerRow, duties, moves, teachers
from lectern.states import InboxState

# -- the teacher's ---------------------------------------------------------------------------------------------------


def holders(connection: Connection) -> dict[str, StreamerRow]:
    """All streamers that ever held a lease, by name."""
    return {row.name: row for row in rows_of(connection, select(StreamerRow))}


def holder(connection: Connection, name: str) -> StreamerRow:
    """The row of streamer *name*; without a session if it never held a lease."""
    return holders(connection).get(name) or StreamerRow(name=name)


def taken_from(connection: Connection, streamer: str) -> list[tuple[str, int]]:
    """(class_id, placement) of each class that was taken from *streamer*, the latest placement of each."""
    wanted = select(moves.c.class_id, moves.c.placement).where(moves.c.streamer == streamer).order_by(moves.c.id)
    return list({row.class_id: row.placement for row in connection.execute(wanted)}.items())


def refused_by(connection: Connection, class_ids: Sequence[str]) -> Mapping[str, set[str]]:
    """The streamers that have refused each of *class_ids*."""
    refused: dict[str, set[str]] = {class_id: set() for class_id in class_ids}
    wanted = select(moves.c.class_id, moves.c.streamer).where(in_list(moves.c.class_id), moves.c.refused)
    for row in connection.execute(wanted, bind_list(class_ids)):
        refused[row.class_id].add(row.streamer)
    return refused


def moved_from(connection: Connection, class_ids: Sequence[str]) -> Mapping[str, str]:
    """The streamer from which each of *class_ids* was last moved because it was lost or drained."""
    left_behind = in_list(moves.c.class_id) & moves.c.refused.is_(False)
    wanted = select(moves.c.class_id, moves.c.streamer).where(left_behind).order_by(moves.c.id)
    return {row.class_id: row.streamer for row in connection.execute(wanted, bind_list(class_ids))}


# -- the streamer's --------------------------------------------------------------------------------------------------


def session(connection: Connection, streamer: str) -> str | None:
    """The session that this streamer was given; None if it never had one."""
    return connection.execute(select(leases.c.session).where(leases.c.streamer == streamer)).scalar_one_or_none()


def hold(connection: Connection, streamer: str, session: str, now: float) -> None:
    """Note that this streamer was given *session*, and has read all that was sent before."""
    put_row(connection, leases, {"streamer": streamer}, session=session, granted_at=now)


def peers(connection: Connection, streamer: str) -> dict[str, str] | None:
    """The other streamers that this one asks, with their addresses; None if it has heard of none yet."""
    known = connection.execute(select(leases.c.peers).where(leases.c.streamer == streamer)).scalar_one_or_none()
    return None if known is None else dict(json.loads(known))


def note_peers(connection: Connection, streamer: str, known: Mapping[str, str]) -> None:
    """Note the other streamers that this one asks, *known* (address by name); it must hold a lease."""
    text = json.dumps(known)
    connection.execute(update(leases).where(leases.c.streamer == streamer).values(peers=text))


def last_name(connection: Connection) -> str | None:
    """The name under which this streamer was given its last lease; None if it never had one."""
    return connection.execute(select(leases.c.streamer).order_by(leases.c.granted_at.desc()).limit(1)).scalar()


def drained_by(connection: Connection) -> str | bool:
    """Who drains this streamer, under whatever name, True if that is not known; False if it is not drained."""
    row = connection.execute(select(drains.c.by)).first()
    return row is not None and (row.by or True)


def drain(connection: Connection, streamer: str, since: float | None, by: str = "") -> None:
    """Note that this streamer is drained *since* then; an earlier time stays. None ends the drain."""
    if since is None:
        connection.execute(delete(drains))
    elif not drained_by(connection):
        connection.execute(insert(drains).values(streamer=streamer, since=since, by=by))


# Teachers that share one database: who is alive, what dead teachers had claimed, and who has which duty.


_CUT_OFF = text("""
    SELECT its.application_name AS program, pg_terminate_backend(its.pid) AS ended
    FROM pg_locks AS held JOIN pg_stat_activity AS its ON its.pid = held.pid
    WHERE held.locktype = 'advisory' AND held.granted
        AND held.classid = 0 AND held.objid = CAST(:lock AS oid) AND held.objsubid = 1
        AND its.datname = current_database() AND its.usename = current_user
        AND its.application_name = ANY(:programs)
        AND its.xact_start <= clock_timestamp() - make_interval(secs => :stands_s)
""")


def note_teacher(connection: Connection, name: str, now: float) -> None:
    """Note that the teacher *name* is there."""
    put_row(connection, teachers, {"name": name}, seen_at=now)


def noted_teachers(connection: Connection, name: str) -> dict[str, float]:
    """The last note of each teacher other than *name*, as epoch seconds."""
    others = select(teachers.c.name, teachers.c.seen_at).where(teachers.c.name != name)
    return {str(row.name): float(row.seen_at) for row in connection.execute(others)}


def free_claims(connection: Connection, name: str, heir: str, keeps: Collection[str] = ()) -> int:
    """Release all that the dead teacher *name* had claimed, for any other teacher; returns how many rows.

    The teacher *heir* is to show the handled messages that no run shows yet. A living teacher *keeps* these duties.
    """
    mine = (inbox.c.state == InboxState.NEW) & (inbox.c.owner == name)
    freed = connection.execute(update(inbox).where(mine).values(not_before=0, owner=None)).rowcount
    connection.execute(update(inbox).where(UNSHOWN, inbox.c.owner == name).values(owner=heir))
    sending = outbox.c.sent_at.is_(None) & (outbox.c.owner == name)
    freed += connection.execute(update(outbox).where(sending).values(lease_until=0, owner=None)).rowcount
    connection.execute(delete(duties).where(duties.c.owner == name, duties.c.name.not_in(keeps)))
    return freed + transcodings.free_requests(connection, name)


def cut_off(connection: Connection, names: Iterable[str], stands_s: float) -> list[str]:
    """End the session in which one of the dead teachers *names* holds up all writers; returns the names cut off.

    Its transaction must have begun *stands_s* ago: a teacher that is started again has the same name, and writes before
    others see that it is there. No limit of the server ends a session that stands still between two rows of one
    statement: it waits for the next. Call it in a transaction that does not wait for the writers' lock itself.
    """
    known = {program_of(name): name for name in names}
    rows = connection.execute(_CUT_OFF, {"lock": WRITERS, "programs": list(known), "stands_s": stands_s})
    return [known[str(row.program)] for row in rows if row.ended]


def take_duty(connection: Connection, duty: str, name: str, lease_s: float, now: float) -> bool:
    """Take the *duty* for *lease_s* from now on, unless another teacher has it; returns whether *name* has it."""
    held = select(duties.c.name).where(duties.c.name == duty, duties.c.owner != name, duties.c.lease_until > now)
    if connection.execute(held).first() is not None:
        return False
    put_row(connection, duties, {"name": duty}, owner=name, lease_until=now + lease_s)
    return True


def claiming_teachers(connection: Connection) -> set[str]:
    """The teachers that have claimed unhandled, unshown or unsent messages, have requests to make, or have a duty."""
    handling = select(inbox.c.owner).where(inbox.c.state == InboxState.NEW, inbox.c.owner.is_not(None))
    showing = select(inbox.c.owner).where(UNSHOWN, inbox.c.owner.is_not(None))
    sending = select(outbox.c.owner).where(outbox.c.sent_at.is_(None), outbox.c.owner.is_not(None))
    names = connection.execute(union(handling, showing, sending, select(duties.c.owner))).scalars()
    return {str(name) for name in names} | transcodings.request_owners(connection)
