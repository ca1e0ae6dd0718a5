"""Cancels that still wait: for the confirmation of a streamer, or for their booking."""

from collections.abc import Sequence
from dataclasses import asdict

import sqlmodel
from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from lectern.changes import CancelTold
from lectern.effects.rows.many import among, these
from lectern.effects.rows.tables.engine import rows_of
from lectern.model.tables.teacher import TOLD_AGAIN_S, CancelRow, cancels


def put(connection: Connection, told: Sequence[CancelTold], now: float) -> None:
    """Keep cancels until a streamer has confirmed them, or their booking has come."""
    connection.execute(delete(cancels).where(among(cancels.c.class_id)), these(one.class_id for one in told))
    latest = {one.class_id: one for one in told}
    rows = [{**asdict(one), "cancelled_at": now, "told_at": now} for one in latest.values()]
    connection.execute(insert(cancels), rows)


def unconfirmed(connection: Connection, class_ids: Sequence[str]) -> set[tuple[str, str]]:
    """The classes among *class_ids* whose cancel a streamer has not confirmed, each with that streamer."""
    wanted = select(cancels.c.class_id, cancels.c.streamer).where(among(cancels.c.class_id))
    return {(row.class_id, row.streamer) for row in connection.execute(wanted, these(class_ids))}


def confirm(connection: Connection, confirmed: Sequence[tuple[str, str]]) -> None:
    """Note that streamers have confirmed the cancels of classes."""
    mine = (cancels.c.class_id == bindparam("of")) & (cancels.c.streamer == bindparam("by"))
    connection.execute(delete(cancels).where(mine), [{"of": class_id, "by": name} for class_id, name in confirmed])


def cancelled_before(connection: Connection, class_ids: Sequence[str], now: float) -> set[str]:
    """The classes among *class_ids* that were cancelled before they were booked; mostly this is one cheap query."""
    waits = cancels.c.streamer.is_(None) & (cancels.c.until > now)
    if not class_ids or connection.execute(select(cancels.c.class_id).where(waits).limit(1)).first() is None:
        return set()
    wanted = select(cancels.c.class_id).where(waits, among(cancels.c.class_id))
    return set(connection.execute(wanted, these(class_ids)).scalars())


def booked(connection: Connection, class_ids: Sequence[str]) -> None:
    """Forget early cancels: their bookings have come, and are cancelled."""
    mine = among(cancels.c.class_id) & cancels.c.streamer.is_(None)
    connection.execute(delete(cancels).where(mine), these(class_ids))


def untold(connection: Connection, now: float) -> list[CancelRow]:
    """The cancels that are to be sent to their streamers again now."""
    which = cancels.c.streamer.is_not(None) & (cancels.c.until > now) & (cancels.c.told_at <= now - TOLD_AGAIN_S)
    return [one for one in _read(connection, which) if one.told_again_at <= now]


def unconfirmed_by(connection: Connection, streamer: str, now: float) -> list[CancelRow]:
    """All cancels that *streamer* has not confirmed."""
    return _read(connection, (cancels.c.streamer == streamer) & (cancels.c.until > now))


def _read(connection: Connection, which: ColumnElement[bool]) -> list[CancelRow]:
    return rows_of(connection, sqlmodel.select(CancelRow).where(which).order_by(cancels.c.told_at).limit(1000))


def touch(connection: Connection, class_ids: Sequence[str], now: float) -> None:
    """Note that the cancels were just sent again."""
    connection.execute(update(cancels).where(among(cancels.c.class_id)).values(told_at=now), these(class_ids))


def prune(connection: Connection, now: float) -> None:
    """Forget the cancels whose time is over."""
    connection.execute(delete(cancels).where(cancels.c.until <= now))
