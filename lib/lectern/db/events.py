"""What happened to a class or a rendition, when, where, why: the source of ``lectern explain``."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import fields
from operator import attrgetter

from pydantic_core import from_json
from sqlalchemy import Connection, Table, bindparam, delete, func, insert, or_, select

from lectern import i18n
from lectern.db.engine import bind_list, in_list, insert_many, rows_of
from lectern.i18n import masked, to_json
from lectern.model.facts import AsRun, Event
from lectern.model.plan import Changes
from lectern.model.tables.shared import sentence
from lectern.model.tables.teacher import ClassEventRow, as_runs, class_events, journal
from lectern.model.views import EventView, numbered
from lectern.urls import redact
from lectern.wire.outgoing import OutgoingKind

MOST = 500
"""Number of events of a record, or in the log of a run, that are shown; there may be thousands."""

table = journal.events
_COLUMNS = ("at", "what", "class_id", "stem", "host", "detail", "sentence")
COLUMNS = (*(table.c[name] for name in _COLUMNS[:-2]), sentence(table, "detail"))
"""The columns of an `EventView`."""


def note(connection: Connection, host: str, events: Iterable[Event], now: float) -> None:
    """Add the events to the transaction."""
    rows = [(now, event.what, event.class_id, event.stem, host, *_detail(event.detail)) for event in events]
    insert_many(connection, table, _COLUMNS, rows)


def _detail(detail: str) -> tuple[str, str | None]:
    stored = to_json(detail)
    if stored is None:
        return redact(detail), None
    if "://" in stored:  # thousands of refusals name no URL
        detail = masked(detail, redact)
        stored = to_json(detail)
    return detail, stored


def keep_of(connection: Connection, story: Sequence[EventView]) -> None:
    """Add what happened to a class on another host; a second report replaces the first."""
    first = story[0]
    same = (table.c.class_id == first.class_id) & (table.c.host == first.host)
    same &= table.c.at.between(min(event.at for event in story), max(event.at for event in story))
    connection.execute(delete(table).where(same, table.c.what.in_({event.what for event in story})))
    rows = [(event.at, event.what, event.class_id, event.stem, event.host, *_detail(event.detail)) for event in story]
    insert_many(connection, table, _COLUMNS, rows)


def named(connection: Connection, what: str, class_ids: Sequence[str]) -> dict[str, list[EventView]]:
    """The events *what* of each of *class_ids*, in time order; a class that had none is left out."""
    wanted = select(*COLUMNS).where(in_list(table.c.class_id), table.c.what == what)
    by_class: dict[str, list[EventView]] = {}
    for row in connection.execute(wanted.order_by(table.c.id), bind_list(class_ids)):
        by_class.setdefault(row.class_id, []).append(EventView(*row))
    return by_class


def between(connection: Connection, class_ids: Iterable[str], since: float, until: float) -> list[EventView]:
    """The first events of the classes *class_ids* from *since* until *until*, in time order, at most MOST."""
    wanted = select(*COLUMNS).where(in_list(table.c.class_id), table.c.at.between(since, until))
    rows = connection.execute(wanted.order_by(table.c.id).limit(MOST), bind_list(class_ids))
    return [EventView(*row) for row in rows]


def of_thing(connection: Connection, class_id: str, stems: Iterable[str]) -> list[EventView]:
    """The events of a class and of its renditions, in time order."""
    theirs = table.c.stem.in_(list(stems)) & table.c.class_id.is_(None)
    wanted = select(*COLUMNS).where(or_(table.c.class_id == class_id, theirs)).order_by(table.c.id)
    return [EventView(*row) for row in connection.execute(wanted)]


def of_record(connection: Connection, record: str) -> list[EventView]:
    """The latest events of a record's renditions and of their classes, in time order; a stem is a record, too."""
    mine = table.c.stem == record
    if record.isascii() and record.isdecimal():
        mine |= table.c.stem.startswith(f"{record}_", autoescape=True)
    latest = select(*COLUMNS).where(mine).order_by(table.c.id.desc()).limit(MOST)
    return [EventView(*row) for row in connection.execute(latest)][::-1]


_HEADS = (
    select(class_events.c.class_id, class_events.c.event, func.max(class_events.c.seq), func.max(class_events.c.at))
    .where(in_list(class_events.c.class_id))
    .group_by(class_events.c.class_id, class_events.c.event)
)
_ENDED = select(class_events.c.class_id, class_events.c.body).where(
    in_list(class_events.c.class_id), class_events.c.event == "ended"
)
_SENT = (
    select(journal.outbox.c.class_id, journal.outbox.c.body)
    .where(in_list(journal.outbox.c.class_id), journal.outbox.c.target == bindparam("target"))
    .order_by(journal.outbox.c.id)
)


def number(connection: Connection, changes: Changes) -> None:
    """Make events of the statements of *changes*, each with its number; what says nothing new goes."""
    if not changes.class_events:
        return
    heads: dict[str, dict[str, tuple[int, float]]] = defaultdict(dict)
    ids = bind_list({statement.class_id for statement in changes.class_events})
    for class_id, event, seq, at in connection.execute(_HEADS, ids):
        heads[class_id][event] = seq, at
    changes.class_events = numbered(heads, changes.class_events)


_TOLD_COLUMNS = ("class_id", "institution_id", "seq", "at", "event", "body")
_TOLD = attrgetter(*_TOLD_COLUMNS)


def put(connection: Connection, changes: Changes) -> None:
    """Add the numbered events of *changes* to the transaction, and the messages that tell the platform of them."""
    rows = [_TOLD(event) for event in changes.class_events]
    insert_many(connection, class_events, _TOLD_COLUMNS, rows)
    target = changes.settings.class_event_channel, OutgoingKind.CHANNEL
    messages = [(*target, body, class_id, changes.now) for class_id, *_, body in rows]
    insert_many(connection, journal.outbox, ("target", "kind", "body", "class_id", "created_at"), messages)


def ends(connection: Connection, class_ids: Iterable[str], answers: str) -> dict[str, tuple[int, str, float]]:
    """The code, the message and the seconds sent that the platform was told of the end of each class.

    If its event ``ended`` was put off, they are those of the last message about it on the channel *answers*.
    """
    ids = bind_list(class_ids)
    rows = [*connection.execute(_SENT, {**ids, "target": answers}), *connection.execute(_ENDED, ids)]
    bodies = ((row.class_id, from_json(row.body)) for row in rows)
    return {class_id: (body["code"], i18n.of_wire(body), body.get("sent_s", 0.0)) for class_id, body in bodies}


def after(connection: Connection, class_id: str, seq: int, limit: int) -> Sequence[ClassEventRow]:
    """The first *limit* events of a class after its event *seq*, in their order."""
    later = (class_events.c.class_id == class_id) & (class_events.c.seq > seq)
    return rows_of(connection, select(ClassEventRow).where(later).order_by(class_events.c.seq).limit(limit))


def feed(connection: Connection, after_id: int, institution_id: str | None, limit: int) -> Sequence[ClassEventRow]:
    """The first *limit* events after the row *after_id*, of one institution or (None) of all, in their order.

    Who has read up to a row misses nothing: a writer commits its rows before the next one gets ids. Who has read beyond
    the newest did so before a restore of the database, whose ids come again: all that is kept comes after that.
    """
    newest = connection.execute(select(func.max(class_events.c.id))).scalar() or 0
    later = class_events.c.id > (after_id if after_id <= newest else 0)
    if institution_id is not None:
        later &= class_events.c.institution_id == institution_id
    return rows_of(connection, select(ClassEventRow).where(later).order_by(class_events.c.id).limit(limit))


_PART = tuple(field.name for field in fields(AsRun))


def keep_parts(connection: Connection, class_id: str, parts: Sequence[AsRun], streamer: str | None = None) -> None:
    """Write down what was sent of a class: at the teacher what *streamer* reports.

    Rows of these parts, and of later ones, are replaced: a second report changes nothing.
    """
    if not parts:
        return
    whose = {"class_id": class_id} | ({} if streamer is None else {"streamer": streamer})
    newer = as_runs.c.begins >= min(part.begins for part in parts) - 0.001
    connection.execute(delete(as_runs).where(newer, *(as_runs.c[name] == value for name, value in whose.items())))
    connection.execute(insert(as_runs), [{**part.row(), **whose} for part in parts])


def parts_of(connection: Connection, class_ids: Iterable[str], rows: Table = as_runs) -> dict[str, list[AsRun]]:
    """What was sent of classes, each in time order; a class of which nothing was sent is left out."""
    by_class: dict[str, list[AsRun]] = {}
    columns = [rows.c[name] for name in _PART if name in rows.c]  # the last, its streamer, is the teacher's
    wanted = select(rows.c.class_id, *columns).where(in_list(rows.c.class_id))
    for class_id, *part in connection.execute(wanted.order_by(rows.c.begins, rows.c.id), bind_list(class_ids)):
        by_class.setdefault(class_id, []).append(AsRun(*part))
    return by_class
