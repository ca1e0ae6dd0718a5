"""The events of classes that the platform is told: numbered by class, and read in the order of their commits."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import sqlmodel
from pydantic_core import from_json
from sqlalchemy import Connection, bindparam, func, select

from lectern import i18n
from lectern.db.bulk import bind_list, in_list, insert_many
from lectern.db.engine import rows_of
from lectern.model.class_events import ClassEvent, numbered
from lectern.model.plan import Changes
from lectern.model.tables.shared import MessageTables
from lectern.model.tables.teacher import ClassEventRow, class_events, orders
from lectern.model.tables.teacher import journal as teacher_journal
from lectern.wire.outgoing import OutgoingKind

_HEADS = (
    select(class_events.c.class_id, class_events.c.event, func.max(class_events.c.seq), func.max(class_events.c.at))
    .where(in_list(class_events.c.class_id))
    .group_by(class_events.c.class_id, class_events.c.event)
)
_WHOSE = select(orders.c.class_id, orders.c.institution_id).where(in_list(orders.c.class_id))
_ENDED = select(class_events.c.class_id, class_events.c.body).where(
    in_list(class_events.c.class_id), class_events.c.event == "ended"
)
_SENT = select(teacher_journal.outbox.c.class_id, teacher_journal.outbox.c.body).where(
    in_list(teacher_journal.outbox.c.class_id), teacher_journal.outbox.c.target == bindparam("target")
)


def number(connection: Connection, changes: Changes) -> None:
    """Make events of the statements of *changes*, each with its number; what says nothing new goes."""
    statements = [statement for statement in changes.class_events if not statement.seq]
    if not statements:
        return
    heads: dict[str, dict[str, tuple[int, float]]] = defaultdict(dict)
    ids = bind_list({statement.class_id for statement in statements})
    for class_id, event, seq, at in connection.execute(_HEADS, ids):
        heads[class_id][event] = seq, at
    whose = {class_id: booking.institution_id for class_id, booking in changes.booked.items()}
    if others := {statement.class_id for statement in statements} - whose.keys():
        whose |= {row.class_id: row.institution_id for row in connection.execute(_WHOSE, bind_list(others))}
    changes.class_events = [statement for statement in changes.class_events if statement.seq]
    changes.class_events += numbered(heads, statements, whose)


def put(connection: Connection, journal: MessageTables, channel: str, events: Sequence[ClassEvent], now: float) -> None:
    """Add numbered events to the transaction, and the messages that tell the platform of them."""
    bodies = [event.body for event in events]
    names = ("class_id", "institution_id", "seq", "at", "event", "body")
    rows = [
        (event.class_id, event.institution_id, event.seq, event.at, event.event, body)
        for event, body in zip(events, bodies, strict=True)
    ]
    insert_many(connection, class_events, names, rows)
    kind = OutgoingKind.CHANNEL
    messages = [(channel, kind, body, event.class_id, now) for event, body in zip(events, bodies, strict=True)]
    insert_many(connection, journal.outbox, ("target", "kind", "body", "class_id", "created_at"), messages)


def ends(connection: Connection, class_ids: Iterable[str], answers: str) -> dict[str, tuple[int, str, float]]:
    """The code, the message and the seconds sent that the platform was told of the end of each class.

    If its event ``ended`` was put off, they are those of the last message about it on the channel *answers*.
    """
    ids = bind_list(class_ids)
    rows = [*connection.execute(_SENT.order_by(teacher_journal.outbox.c.id), {**ids, "target": answers})]
    bodies = ((row.class_id, from_json(row.body)) for row in (*rows, *connection.execute(_ENDED, ids)))
    return {class_id: (body["code"], i18n.of_wire(body), body.get("sent_s", 0.0)) for class_id, body in bodies}


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
