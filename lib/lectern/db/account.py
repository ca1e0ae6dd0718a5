"""Reads facts and events for the account of a class, and from a streamer's events what failed last."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import TypeVar

from sqlalchemy import Connection, func, select

from lectern.db import airings, bookings, events, incidents, timetable
from lectern.db.engine import rows_of
from lectern.errors import LecternError
from lectern.i18n import msgid
from lectern.model.facts import Airing, Order
from lectern.model.tables.streamer import as_runs
from lectern.model.tables.teacher import RenditionRow, journal, orders, streamers, videos
from lectern.model.views import Booked, Check, ClassView, EventView
from lectern.states import InboxState
from lectern.urls import redact_url
from lectern.wire.parser import author_of, fields_of

T = TypeVar("T")
ON_AIR, NOTHING = "on air", "nothing to send"
CHECKED, NOT_READY = msgid("checked: ready"), msgid("checked: not ready")
_MOST = 5_000
"""Most events of a class that one query reads, the newest ones: a push host that takes it and cuts it again for an hour
makes some thousands."""


def newest(connection: Connection, class_ids: Iterable[str], whats: Sequence[str]) -> dict[str, EventView]:
    """The newest event of each class that is among *whats*; a class that has none is left out."""
    mine = events.table.c.class_id.in_(list(class_ids)) & events.table.c.what.in_(whats)
    last = select(func.max(events.table.c.id)).where(mine).group_by(events.table.c.class_id)
    found = connection.execute(select(*events.COLUMNS).where(events.table.c.id.in_(last)))
    return {row.class_id: EventView(*row) for row in found}


def pushed(connection: Connection, class_ids: Sequence[str]) -> list[str]:
    """The classes among *class_ids* that are sent: a server has taken the push, and it has something to send."""
    taken = newest(connection, class_ids, (ON_AIR, "lease over", "push broke off", "push refused"))
    sent = newest(connection, class_ids, (ON_AIR, NOTHING, "slate", "recording again"))  # their push has gone on
    return [class_id for class_id, event in taken.items() if event.what == ON_AIR and sent[class_id].what != NOTHING]


def story_events(connection: Connection, class_id: str, whats: Iterable[str]) -> list[EventView]:
    """The events of a class that are among *whats*, in time order."""
    mine = (events.table.c.class_id == class_id) & events.table.c.what.in_(list(whats))
    wanted = select(*events.COLUMNS).where(mine).order_by(events.table.c.id.desc()).limit(_MOST)
    return [EventView(*row) for row in connection.execute(wanted)][::-1]


def checks(connection: Connection, class_ids: Iterable[str]) -> Mapping[str, Check]:
    """The findings of the last check of each class."""
    return {
        class_id: Check(event.at, (event.detail or "no reason was kept") if event.what == NOT_READY else "")
        for class_id, event in newest(connection, class_ids, (CHECKED, NOT_READY)).items()
    }


def _story(connection: Connection, thing: str, class_: Order | Airing | None) -> list[EventView]:
    """The events of a class and its rendition, or of a record's renditions, in time order."""
    stems = [] if class_ is None else [class_.stem]
    story = events.of_thing(connection, thing, stems)
    if class_ is None:
        story += events.of_record(connection, thing)
    return sorted(story, key=attrgetter("at"))


def booking(connection: Connection, class_id: str) -> Order | None:
    """A class at its teacher; None if it is not known. Raises LecternError if its row cannot be read."""
    return _known(bookings.by_id, connection, class_id)


def _known(
    by_id: Callable[[Connection, Sequence[str]], Mapping[str, T]], connection: Connection, class_id: str
) -> T | None:
    try:
        return by_id(connection, [class_id]).get(class_id)
    except ValueError as error:
        raise LecternError(
            "{class_id}: its row cannot be read: {error}. Perhaps a newer release has written it, and was rolled "
            "back; that release can explain it. Other classes are as they were.",
            class_id=class_id,
            error=error,
        ) from error


def at_teacher(connection: Connection, host: str, class_id: str) -> ClassView:
    """A class as its teacher, *host*, knows it. Raises LecternError if its row cannot be read."""
    order = booking(connection, class_id)
    story = _story(connection, class_id, order)
    if order is None:
        since = kept_since(connection, class_id)
        is_malformed = any(event.what == "malformed" for event in story)
        return ClassView(class_id, kept_since=since, is_malformed=is_malformed, events=story)
    alarms = incidents.about(connection, host, class_id)
    parts = events.parts_of(connection, [class_id]).get(class_id, ())
    return ClassView(
        class_id, booked(connection, order), making(connection, order), alarms=alarms, as_run=parts, events=story
    )


def at_streamer(connection: Connection, host: str, class_id: str) -> ClassView:
    """A class as the streamer *host* knows it. Raises LecternError if its row cannot be read."""
    airing = _known(airings.by_id, connection, class_id)
    story = _story(connection, class_id, airing)
    if airing is None:
        return ClassView(class_id, kept_since=kept_since(connection, class_id), events=story)
    alarms = incidents.about(connection, host, class_id)
    video_url = redact_url(airing.video_url) if airing.video_url else None
    return ClassView(
        class_id,
        cited=replace(airing, video_url=video_url, push_url=redact_url(airing.push_url) if airing.push_url else ""),
        streamer=host,
        check=checks(connection, [class_id]).get(class_id),
        dead_air=airings.recording_warning(connection, airing),
        alarms=alarms,
        as_run=events.parts_of(connection, [class_id], as_runs).get(class_id, ()),
        events=story,
    )


def booked(connection: Connection, order: Order) -> Booked:
    """A booking with its times and places, as people may see them."""
    (known,) = timetable.classes(connection, orders.c.class_id == order.class_id, 1)
    lost = select(streamers.c.lost_at).where(streamers.c.name == order.streamer)
    payload = fields_of(order.payload)
    source, push = order.url or payload.get("video_url"), payload.get("push_url")
    return replace(
        known,
        lost_since=connection.execute(lost).scalar_one_or_none(),
        video_url=redact_url(str(source)) if source else None,
        push_url=redact_url(str(push)) if push else None,
        by=author_of(order.payload),
    )


def making(connection: Connection, order: Order) -> RenditionRow | None:
    """The rendition that a booking names; None if it has no row."""
    mine = (videos.c.record_id == order.record_id) & (videos.c.resolution == order.resolution)
    return next(iter(rows_of(connection, select(RenditionRow).where(mine))), None)


def kept_since(connection: Connection, class_id: str) -> float | None:
    """Since when (epoch seconds) a message about a class has waited in the inbox; None if none waits."""
    inbox = journal.inbox
    named = inbox.c.body.contains(json.dumps(class_id), autoescape=True)
    oldest = select(inbox.c.received_at).where(inbox.c.state == InboxState.NEW, named).order_by(inbox.c.id).limit(1)
    return connection.execute(oldest).scalar_one_or_none()
