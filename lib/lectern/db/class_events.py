"""The events of classes that the platform is told, in the order in which they were committed."""

from collections.abc import Sequence

import sqlmodel
from sqlalchemy import Connection

from lectern.db.engine import rows_of
from lectern.model.tables.teacher import ClassEventRow, class_events


def after(connection: Connection, class_id: str, seq: int, limit: int) -> Sequence[ClassEventRow]:
    """The first *limit* events of a class after its event *seq*, in their order."""
    later = (class_events.c.class_id == class_id) & (class_events.c.seq > seq)
    return rows_of(connection, sqlmodel.select(ClassEventRow).where(later).order_by(class_events.c.seq).limit(limit))


def feed(connection: Connection, after_id: int, institution_id: str | None, limit: int) -> Sequence[ClassEventRow]:
    """The first *limit* events after the row *after_id*, of one institution or (None) of all, in their order.

    Who has read up to a row misses nothing: a writer commits its rows before the next one gets ids.
    """
    later = class_events.c.id > after_id
    if institution_id is not None:
        later &= class_events.c.institution_id == institution_id
    return rows_of(connection, sqlmodel.select(ClassEventRow).where(later).order_by(class_events.c.id).limit(limit))
