"""Reads from a host's database the facts and events for the account of a class or a record."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic_core import from_json
from sqlalchemy import Connection, select

from lectern.effects.rows import airings, as_run, bookings, dead_air, events, incidents, sent, transcodings
from lectern.errors import LecternError
from lectern.facts import Airing, Order
from lectern.model.tables import streamer as streamer_tables
from lectern.model.tables import teacher as teacher_tables
from lectern.model.tables.shared import Journal, Role
from lectern.model.tables.teacher import orders, streamers, videos
from lectern.shown import shown
from lectern.states import InboxState
from lectern.told import Booked, Cited, Found, Making, Past

_KNOWN = ("class_id", "state", "stem", "start_time", "end_time", "code", "message")
"""The fields that a class has both at its teacher and on its streamer."""


def journal_of(role: Role) -> Journal:
    """The tables of messages, events and incidents of a role."""
    return teacher_tables.journal if role == "teacher" else streamer_tables.journal


def events_of(connection: Connection, role: Role, thing: str) -> list[Past]:
    """The events of a class and its rendition, or of a record's renditions, in time order."""
    journal = journal_of(role)
    one = booking(connection, thing) if role == "teacher" else _airing(connection, thing)
    stems = {one.stem} if one is not None else set()
    found = events.of_thing(connection, journal, class_id=thing, stems=stems)
    if not stems:
        found += events.of_record(connection, journal, thing)
    return sorted(found, key=lambda one: one.at)


def booking(connection: Connection, class_id: str) -> Order | None:
    """A class at its teacher; None if it is not known. Raises LecternError if its row cannot be read."""
    with _in_words(class_id):
        return bookings.by_id(connection, [class_id]).get(class_id)


def _airing(connection: Connection, class_id: str) -> Airing | None:
    with _in_words(class_id):
        return airings.by_id(connection, [class_id]).get(class_id)


@contextmanager
def _in_words(class_id: str) -> Iterator[None]:
    """Turn what is raised for an unreadable row into a LecternError."""
    try:
        yield
    except ValueError as error:
        raise LecternError(
            f"{class_id}: its row cannot be read: {error}. Perhaps a newer release has written it, and was "
            "rolled back; that release can explain it. Other classes are as they were."
        ) from error


def at_teacher(connection: Connection, host: str, class_id: str) -> Found:
    """A class as its teacher, *host*, knows it. Raises LecternError if its row cannot be read."""
    one = booking(connection, class_id)
    told = tuple(events_of(connection, "teacher", class_id))
    if one is None:
        since = kept_since(connection, "teacher", class_id)
        is_malformed = any(event.what == "malformed" for event in told)
        return Found(class_id, kept_since=since, is_malformed=is_malformed, events=told)
    alarms = incidents.about(connection, teacher_tables.journal, host, class_id)
    parts = as_run.of_classes(connection, [class_id]).get(class_id, ())
    return Found(class_id, booked(connection, one), making(connection, one), alarms=alarms, as_run=parts, events=told)


def at_streamer(connection: Connection, host: str, class_id: str, now: float) -> Found:
    """A class as the streamer *host* knows it. Raises LecternError if its row cannot be read."""
    one = _airing(connection, class_id)
    told = tuple(events_of(connection, "streamer", class_id))
    if one is None:
        return Found(class_id, kept_since=kept_since(connection, "streamer", class_id), events=told)
    alarms = incidents.about(connection, streamer_tables.journal, host, class_id)
    return Found(
        class_id,
        cited=_cited(connection, one),
        streamer=host,
        sending=sent.sendings(connection, [one]).get(class_id) if now >= one.start_time else None,
        check=sent.checks(connection, [class_id]).get(class_id),
        dead_air=dead_air.warning(connection, one),
        alarms=alarms,
        as_run=as_run.of_class(connection, class_id),
        events=told,
    )


def booked(connection: Connection, one: Order) -> Booked:
    """A booking with its times and places, as people may see them."""
    columns = (orders.c.institution_id, orders.c.received_at, orders.c.updated_at, orders.c.answered_at)
    row = connection.execute(select(*columns).where(orders.c.class_id == one.class_id)).one()
    lost = select(streamers.c.lost_at).where(streamers.c.name == one.streamer)
    said = _fields(one.payload)
    source = one.url or said.get("video_url")
    push = said.get("push_url")
    return Booked(
        **{name: getattr(one, name) for name in _KNOWN},
        streamer=one.streamer,
        answered=row.answered_at is not None,
        lost_since=connection.execute(lost).scalar_one_or_none(),
        institution=row.institution_id,
        source=shown(str(source)) if source else None,
        push=shown(str(push)) if push else None,
        received_at=row.received_at,
        placement=one.placement,
        decided_at=row.updated_at,
    )


def _fields(payload: str) -> Mapping[str, Any]:
    """The fields of a booking's payload; empty if it is unreadable, as an old program's may be."""
    try:
        found = from_json(payload)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def making(connection: Connection, one: Order) -> Making | None:
    """The rendition that a booking names; None if it has no row."""
    mine = (videos.c.record_id == one.record_id) & (videos.c.resolution == one.resolution)
    row = connection.execute(select(*transcodings.MAKING).where(mine)).one_or_none()
    return None if row is None else transcodings.making(row)


def _cited(connection: Connection, one: Airing) -> Cited:
    tasks = streamer_tables.tasks
    columns = (tasks.c.institution_id, tasks.c.video_url)
    row = connection.execute(select(*columns).where(tasks.c.class_id == one.class_id)).one()
    return Cited(
        **{name: getattr(one, name) for name in _KNOWN},
        lost=one.lost,
        institution=row.institution_id,
        source=shown(row.video_url) if row.video_url else None,
        push=shown(one.push_url) if one.push_url else None,
        placement=one.placement,
    )


def kept_since(connection: Connection, role: Role, class_id: str) -> float | None:
    """Since when (epoch seconds) a message about a class has waited in the inbox; None if none waits."""
    table = journal_of(role).inbox
    named = table.c.body.contains(json.dumps(class_id), autoescape=True)
    oldest = select(table.c.received_at).where(table.c.state == InboxState.NEW, named).order_by(table.c.id).limit(1)
    return connection.execute(oldest).scalar_one_or_none()
