"""Reads facts and events for the account of a class, and from a streamer's events what is being sent."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import TypeVar

from sqlalchemy import Connection, func, select

from lectern.db import airings, bookings, events, incidents, timetable
from lectern.db.engine import rows_of
from lectern.errors import LecternError
from lectern.model.facts import Airing, Order
from lectern.model.tables.streamer import as_runs
from lectern.model.tables.teacher import RenditionRow, journal, orders, streamers, videos
from lectern.model.views import Booked, Check, ClassView, EventView, Sending
from lectern.states import AiringState, InboxState
from lectern.urls import redact_url
from lectern.wire.parser import author_of, fields_of

T = TypeVar("T")
ON_AIR, NOTHING, FENCED = "on air", "nothing to send", "lease over"
BROKE_OFF = ("push broke off", "push refused", NOTHING)
SENT_AGAIN = ("slate", "recording again")
"""Events from which on a class that had nothing to send is sent again, if its push has gone on."""

CHECKED, NOT_READY = "checked: ready", "checked: not ready"
_MOST, _MOST_OF_ONE = 5_000, 500
"""Most events that one query reads, the newest ones: each class has its share, and at least the second number. A push
host that takes a class and cuts it again for an hour makes some thousands."""


def sendings(connection: Connection, due: Sequence[Airing]) -> dict[str, Sending]:
    """The state of sending of each class of *due*; a class for which nothing was tried yet is left out."""
    events: dict[str, list[EventView]] = {airing.class_id: [] for airing in due}
    for event in _latest(connection, list(events), (ON_AIR, FENCED, *BROKE_OFF, *SENT_AGAIN)):
        events[event.class_id or ""].append(event)
    return {
        airing.class_id: _sending(airing.state, events[airing.class_id]) for airing in due if events[airing.class_id]
    }


def _sending(state: AiringState, newest_first: Sequence[EventView]) -> Sending:
    """Whether a class is on air, since when, and what went wrong last; more of it only its playout knows."""
    begins = [event.at for event in newest_first if event.what == ON_AIR]
    broken = next((event for event in newest_first if event.what in BROKE_OFF), None)
    is_taken = lacks = False
    for event in reversed(newest_first):
        if event.what not in (NOTHING, *SENT_AGAIN):
            is_taken = event.what == ON_AIR
        lacks = event.what == NOTHING or (lacks and event.what not in (ON_AIR, *SENT_AGAIN))
    return Sending(
        on_air=state is AiringState.ON_AIR and is_taken and not lacks,
        since=begins[-1] if begins else None,
        why=broken.detail if broken else None,
        why_at=broken.at if broken else None,
    )


def story_events(connection: Connection, class_id: str, whats: Iterable[str]) -> list[EventView]:
    """The events of a class that are among *whats*, in time order."""
    return _latest(connection, [class_id], list(whats))[::-1]


def checks(connection: Connection, class_ids: Iterable[str]) -> Mapping[str, Check]:
    """The findings of the last check of each class."""
    by_class: dict[str, Check] = {}
    for event in _latest(connection, list(class_ids), (CHECKED, NOT_READY)):
        reds = (event.detail or "no reason was kept") if event.what == NOT_READY else ""
        by_class.setdefault(event.class_id or "", Check(event.at, reds))
    return by_class


def _latest(connection: Connection, class_ids: Sequence[str], whats: Sequence[str]) -> list[EventView]:
    table = events.table
    if not class_ids:
        return []
    mine = table.c.class_id.in_(class_ids) & table.c.what.in_(whats)
    place = func.row_number().over(partition_by=table.c.class_id, order_by=table.c.id.desc())
    its = select(table.c.id, place.label("place")).where(mine).subquery()
    newest = its.c.place <= max(_MOST // len(class_ids), _MOST_OF_ONE)
    wanted = select(*events.COLUMNS).join(its, its.c.id == table.c.id).where(newest)
    return [EventView(*row) for row in connection.execute(wanted.order_by(table.c.id.desc()))]


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


def at_streamer(connection: Connection, host: str, class_id: str, now: float) -> ClassView:
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
        sending=sendings(connection, [airing]).get(class_id) if now >= airing.start_time else None,
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
