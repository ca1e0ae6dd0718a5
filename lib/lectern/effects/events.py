"""What happened to a class or a rendition, when, where, why: the source of ``lectern explain``."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, or_, select

from lectern.effects.tables.shared import Journal
from lectern.shown import masked


@dataclass(frozen=True)
class Event:
    """Something that happened; *stem* is the rendition's."""

    what: str
    class_id: str | None = None
    stem: str | None = None
    detail: str = ""


@dataclass(frozen=True)
class Past:
    """An event as it was kept; *at* is epoch seconds."""

    at: float
    what: str
    class_id: str | None
    stem: str | None
    host: str
    detail: str


def note(connection: Connection, journal: Journal, host: str, events: Iterable[Event], now: float) -> None:
    """Add the events to the transaction."""
    rows = [
        {"at": now, "what": e.what, "class_id": e.class_id, "stem": e.stem, "host": host, "detail": masked(e.detail)}
        for e in events
    ]
    if rows:
        connection.execute(insert(journal.events), rows)


def of_thing(connection: Connection, journal: Journal, *, class_id: str | None, stems: Iterable[str]) -> list[Past]:
    """The events of a class and of its renditions, in time order."""
    events = journal.events
    columns = (events.c.at, events.c.what, events.c.class_id, events.c.stem, events.c.host, events.c.detail)
    mine = [events.c.class_id == class_id] if class_id else []
    theirs = events.c.stem.in_(list(stems)) & events.c.class_id.is_(None)
    wanted = select(*columns).where(or_(*mine, theirs)).order_by(events.c.id)
    return [Past(*row) for row in connection.execute(wanted)]


def stems_of(connection: Connection, journal: Journal, record_id: int) -> list[str]:
    """The renditions of a record that events know."""
    events = journal.events
    mine = (events.c.stem == str(record_id)) | events.c.stem.startswith(f"{record_id}_", autoescape=True)
    return [str(row.stem) for row in connection.execute(select(events.c.stem).where(mine).distinct())]


def prune(connection: Connection, journal: Journal, before: float) -> None:
    """Forget what happened before *before* (epoch seconds)."""
    connection.execute(delete(journal.events).where(journal.events.c.at < before))
