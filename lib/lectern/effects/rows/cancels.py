"""Cancels that are not done with: a streamer has not confirmed them, or their booking has not come."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from lectern.effects.rows.tables.teacher import cancels
from lectern.facts import TOLD_AGAIN_S, Unconfirmed


def tell(connection: Connection, class_id: str, streamer: str, until: float, now: float) -> None:
    """*streamer* is told now to give the class up, and again until it confirms it, or the class is over at *until*."""
    _put(connection, class_id, streamer, until, now)


def expect(connection: Connection, class_id: str, until: float, now: float) -> None:
    """The class is not booked yet; a booking of it that comes before *until* is cancelled."""
    _put(connection, class_id, None, until, now)


def _put(connection: Connection, class_id: str, streamer: str | None, until: float, now: float) -> None:
    connection.execute(delete(cancels).where(cancels.c.class_id == class_id))
    values = {"streamer": streamer, "cancelled_at": now, "told_at": now, "until": until}
    connection.execute(insert(cancels).values(class_id=class_id, **values))


def confirmed(connection: Connection, class_id: str, streamer: str) -> bool:
    """*streamer* has given the class up; False where it was not asked to."""
    mine = (cancels.c.class_id == class_id) & (cancels.c.streamer == streamer)
    return connection.execute(delete(cancels).where(mine)).rowcount > 0


def cancelled_before(connection: Connection, class_ids: Sequence[str], now: float) -> set[str]:
    """Those of *class_ids* that were cancelled before they were booked. Mostly none waits: that costs one look."""
    waits = cancels.c.streamer.is_(None) & (cancels.c.until > now)
    if not class_ids or connection.execute(select(cancels.c.class_id).where(waits).limit(1)).first() is None:
        return set()
    wanted = select(cancels.c.class_id).where(waits, cancels.c.class_id.in_(class_ids))
    return set(connection.execute(wanted).scalars())


def booked(connection: Connection, class_ids: Sequence[str]) -> None:
    """The bookings that were awaited have come, and are cancelled."""
    mine = cancels.c.class_id.in_(class_ids) & cancels.c.streamer.is_(None)
    connection.execute(delete(cancels).where(mine))


def untold(connection: Connection, now: float) -> list[Unconfirmed]:
    """What is to be told again now."""
    which = cancels.c.streamer.is_not(None) & (cancels.c.until > now) & (cancels.c.told_at <= now - TOLD_AGAIN_S)
    return [one for one in _read(connection, which) if one.told_again_at <= now]


def unconfirmed_by(connection: Connection, streamer: str, now: float) -> list[Unconfirmed]:
    """All that *streamer* has not confirmed."""
    return _read(connection, (cancels.c.streamer == streamer) & (cancels.c.until > now))


def _read(connection: Connection, which: ColumnElement[bool]) -> list[Unconfirmed]:
    columns = (cancels.c.class_id, cancels.c.streamer, cancels.c.cancelled_at, cancels.c.told_at)
    wanted = select(*columns).where(which).order_by(cancels.c.told_at).limit(1000)
    return [Unconfirmed(*row) for row in connection.execute(wanted)]


def touch(connection: Connection, class_ids: Sequence[str], now: float) -> None:
    """The cancels were just told again."""
    connection.execute(update(cancels).where(cancels.c.class_id.in_(class_ids)).values(told_at=now))


def prune(connection: Connection, now: float) -> None:
    """Forget those whose time is over."""
    connection.execute(delete(cancels).where(cancels.c.until <= now))
