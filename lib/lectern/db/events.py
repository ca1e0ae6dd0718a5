"""What happened to a class or a rendition, when, where, why: the source of ``lectern explain``."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, or_, select

from lectern.db.bulk import bind_list, in_list, insert_many
from lectern.i18n import Text, to_json
from lectern.model.facts import Event
from lectern.model.tables.shared import MessageTables, sentence
from lectern.model.views import EventView
from lectern.urls import redact

MOST = 500
"""Number of events of a record, or in the log of a run, that are shown; there may be thousands."""


def note(connection: Connection, journal: MessageTables, host: str, events: Iterable[Event], now: float) -> None:
    """Add the events to the transaction."""
    rows = [(now, event.what, event.class_id, event.stem, host, *_detail(event.detail)) for event in events]
    insert_many(connection, journal.events, _COLUMNS, rows)


_COLUMNS = ("at", "what", "class_id", "stem", "host", "detail", "sentence")


def _detail(detail: str) -> tuple[str, str | None]:
    if isinstance(detail, Text):
        detail = detail.masked(redact)
        return detail, to_json(detail)
    return redact(detail), None


def keep_of(connection: Connection, journal: MessageTables, story: Sequence[EventView]) -> None:
    """Add what happened to a class on another host; a second report replaces the first."""
    table, first = journal.events, story[0]
    same = (table.c.class_id == first.class_id) & (table.c.host == first.host)
    same &= table.c.at.between(min(event.at for event in story), max(event.at for event in story))
    connection.execute(delete(table).where(same, table.c.what.in_({event.what for event in story})))
    whose = [(event.at, event.what, event.class_id, event.stem, event.host) for event in story]
    rows = [(*named, *_detail(event.detail)) for named, event in zip(whose, story, strict=True)]
    insert_many(connection, table, _COLUMNS, rows)


def known(connection: Connection, journal: MessageTables, what: str, class_ids: Sequence[str]) -> set[str]:
    """The classes among *class_ids* to which *what* happened before."""
    events = journal.events
    wanted = select(events.c.class_id).where(in_list(events.c.class_id), events.c.what == what)
    return {str(class_id) for class_id in connection.execute(wanted, bind_list(class_ids)).scalars()}


def named(
    connection: Connection, journal: MessageTables, what: str, class_ids: Sequence[str]
) -> dict[str, list[EventView]]:
    """The events *what* of the classes *class_ids*, each in time order."""
    wanted = select(*columns(journal)).where(in_list(journal.events.c.class_id), journal.events.c.what == what)
    by_class: dict[str, list[EventView]] = {}
    for row in connection.execute(wanted.order_by(journal.events.c.id), bind_list(class_ids)):
        by_class.setdefault(row.class_id, []).append(EventView(*row))
    return by_class


def between(
    connection: Connection, journal: MessageTables, class_ids: Iterable[str], since: float, until: float
) -> list[EventView]:
    """The first events of the classes *class_ids* from *since* until *until*, in time order, at most MOST."""
    events = journal.events
    wanted = select(*columns(journal)).where(in_list(events.c.class_id), events.c.at.between(since, until))
    rows = connection.execute(wanted.order_by(events.c.id).limit(MOST), bind_list(class_ids))
    return [EventView(*row) for row in rows]


def of_thing(
    connection: Connection, journal: MessageTables, *, class_id: str | None, stems: Iterable[str]
) -> list[EventView]:
    """The events of a class and of its renditions, in time order."""
    events = journal.events
    mine = [events.c.class_id == class_id] if class_id else []
    theirs = events.c.stem.in_(list(stems)) & events.c.class_id.is_(None)
    wanted = select(*columns(journal)).where(or_(*mine, theirs)).order_by(events.c.id)
    return [EventView(*row) for row in connection.execute(wanted)]


def of_record(connection: Connection, journal: MessageTables, record: str) -> list[EventView]:
    """The latest events of a record's renditions and of their classes, in time order; a stem is a record, too."""
    events = journal.events
    mine = events.c.stem == record
    if record.isascii() and record.isdecimal():
        mine |= events.c.stem.startswith(f"{record}_", autoescape=True)
    latest = select(*columns(journal)).where(mine).order_by(events.c.id.desc()).limit(MOST)
    return [EventView(*row) for row in connection.execute(latest)][::-1]


def columns(journal: MessageTables) -> tuple[ColumnElement[Any], ...]:
    """The columns of a `EventView`."""
    events = journal.events
    whose = events.c.at, events.c.what, events.c.class_id, events.c.stem, events.c.host
    return *whose, sentence(events, "detail")
