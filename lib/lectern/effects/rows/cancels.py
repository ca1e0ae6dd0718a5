"""Cancels that still wait: for the confirmation of a streamer, or for their booking."""

from collections.abc import Sequence

import sqlmodel
from sqlalchemy import Connection, delete, select
from sqlalchemy.sql.elements import ColumnElement

from lectern.effects.rows.many import among, these
from lectern.effects.rows.tables.engine import rows_of
from lectern.model.tables.teacher import TOLD_AGAIN_S, CancelRow, cancels


def unconfirmed(connection: Connection, class_ids: Sequence[str]) -> set[tuple[str, str]]:
    """The classes among *class_ids* whose cancel a streamer has not confirmed, each with that streamer."""
    wanted = select(cancels.c.class_id, cancels.c.streamer).where(among(cancels.c.class_id))
    return {(row.class_id, row.streamer) for row in connection.execute(wanted, these(class_ids))}


def cancelled_before(connection: Connection, class_ids: Sequence[str], now: float) -> set[str]:
    """The classes among *class_ids* that were cancelled before they were booked; mostly this is one cheap query."""
    waits = cancels.c.streamer.is_(None) & (cancels.c.until > now)
    if not class_ids or connection.execute(select(cancels.c.class_id).where(waits).limit(1)).first() is None:
        return set()
    wanted = select(cancels.c.class_id).where(waits, among(cancels.c.class_id))
    return set(connection.execute(wanted, these(class_ids)).scalars())


def untold(connection: Connection, now: float) -> list[CancelRow]:
    """The cancels that are to be sent to their streamers again now."""
    which = cancels.c.streamer.is_not(None) & (cancels.c.until > now) & (cancels.c.told_at <= now - TOLD_AGAIN_S)
    return [one for one in _read(connection, which) if one.told_again_at <= now]


def unconfirmed_by(connection: Connection, streamer: str, now: float) -> list[CancelRow]:
    """All cancels that *streamer* has not confirmed."""
    return _read(connection, (cancels.c.streamer == streamer) & (cancels.c.until > now))


def _read(connection: Connection, which: ColumnElement[bool]) -> list[CancelRow]:
    return rows_of(connection, sqlmodel.select(CancelRow).where(which).order_by(cancels.c.told_at).limit(1000))


def prune(connection: Connection, now: float) -> None:
    """Forget the cancels whose time is over."""
    connection.execute(delete(cancels).where(cancels.c.until <= now))
