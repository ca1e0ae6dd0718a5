"""Teachers that share one database: who is alive, what dead teachers had claimed, and who has which duty."""

from collections.abc import Collection, Iterable

from sqlalchemy import Connection, delete, insert, or_, select, text, union, update

from lectern.effects.rows import oss_requests
from lectern.effects.rows.inbox import unshown
from lectern.effects.rows.tables.engine import WRITERS
from lectern.effects.rows.tables.postgresql import program_of
from lectern.model.tables.teacher import duties, journal, teachers
from lectern.states import InboxState

_CUT_OFF = text("""
    SELECT its.application_name AS program, pg_terminate_backend(its.pid) AS ended
    FROM pg_locks AS held JOIN pg_stat_activity AS its ON its.pid = held.pid
    WHERE held.locktype = 'advisory' AND held.granted
        AND held.classid = 0 AND held.objid = CAST(:lock AS oid) AND held.objsubid = 1
        AND its.datname = current_database() AND its.usename = current_user
        AND its.application_name = ANY(:programs)
        AND its.xact_start <= clock_timestamp() - make_interval(secs => :stands_s)
""")


def note(connection: Connection, name: str, now: float) -> None:
    """Note that the teacher *name* is there."""
    seen = update(teachers).where(teachers.c.name == name).values(seen_at=now)
    if not connection.execute(seen).rowcount:
        connection.execute(insert(teachers).values(name=name, seen_at=now))


def noted(connection: Connection, name: str) -> dict[str, float]:
    """The last note of each teacher other than *name*, as epoch seconds."""
    others = select(teachers.c.name, teachers.c.seen_at).where(teachers.c.name != name)
    return {str(row.name): float(row.seen_at) for row in connection.execute(others)}


def free(connection: Connection, name: str, heir: str, keeps: Collection[str] = ()) -> int:
    """Release all that the dead teacher *name* had claimed, for any other teacher; returns how many rows.

    The teacher *heir* is to show the handled messages that no run shows yet. A living teacher *keeps* these duties.
    """
    inbox, outbox = journal.inbox, journal.outbox
    mine = (inbox.c.state == InboxState.NEW) & (inbox.c.owner == name)
    found = connection.execute(update(inbox).where(mine).values(not_before=0, owner=None)).rowcount
    connection.execute(update(inbox).where(unshown(journal), inbox.c.owner == name).values(owner=heir))
    sending = outbox.c.sent_at.is_(None) & (outbox.c.owner == name)
    found += connection.execute(update(outbox).where(sending).values(lease_until=0, owner=None)).rowcount
    connection.execute(delete(duties).where(duties.c.owner == name, duties.c.name.not_in(keeps)))
    return found + oss_requests.free(connection, name)


def cut_off(connection: Connection, names: Iterable[str], stands_s: float) -> list[str]:
    """End the session in which one of the dead teachers *names* holds up all writers; returns the names cut off.

    Its transaction must have begun *stands_s* ago: a teacher that is started again has the same name, and writes before
    others see that it is there. No limit of the server ends a session that stands still between two rows of one
    statement: it waits for the next. Call it in a transaction that does not wait for the writers' lock itself.
    """
    known = {program_of(name): name for name in names}
    found = (
        connection.execute(_CUT_OFF, {"lock": WRITERS, "programs": list(known), "stands_s": stands_s}) if known else ()
    )
    return [known[str(row.program)] for row in found if row.ended]


def take(connection: Connection, duty: str, name: str, lease_s: float, now: float) -> bool:
    """Take the *duty* for *lease_s* from now on, unless another teacher has it; returns whether *name* has it."""
    free_ = or_(duties.c.owner == name, duties.c.lease_until <= now)
    values = {"owner": name, "lease_until": now + lease_s}
    if connection.execute(update(duties).where(duties.c.name == duty, free_).values(**values)).rowcount:
        return True
    if connection.execute(select(duties.c.name).where(duties.c.name == duty)).first() is not None:
        return False
    connection.execute(insert(duties).values(name=duty, **values))
    return True


def forget(connection: Connection, before: float) -> None:
    """Forget the teachers whose last note is older than *before* (epoch seconds)."""
    connection.execute(delete(teachers).where(teachers.c.seen_at < before))


def claiming(connection: Connection) -> set[str]:
    """The teachers that have claimed unhandled, unshown or unsent messages, have requests to make, or have a duty."""
    inbox, outbox = journal.inbox, journal.outbox
    handling = select(inbox.c.owner).where(inbox.c.state == InboxState.NEW, inbox.c.owner.is_not(None))
    showing = select(inbox.c.owner).where(unshown(journal), inbox.c.owner.is_not(None))
    sending = select(outbox.c.owner).where(outbox.c.sent_at.is_(None), outbox.c.owner.is_not(None))
    found = connection.execute(union(handling, showing, sending, select(duties.c.owner))).scalars()
    return {str(one) for one in found} | oss_requests.owners(connection)
