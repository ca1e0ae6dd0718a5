"""The whole story of a class or a record, as a host's database has it, and how things stand."""

import json
import time
from typing import Any

from sqlalchemy import Connection, Engine, select

from lectern.effects.rows import airings, bookings, events
from lectern.effects.rows.schema import Role
from lectern.effects.rows.tables import streamer as streamer_tables
from lectern.effects.rows.tables import teacher as teacher_tables
from lectern.effects.rows.tables.engine import transaction
from lectern.effects.rows.tables.teacher import orders, streamers, videos
from lectern.facts import Booked, Cited, Making, Order
from lectern.states import Backend, InboxState, RenditionState


def story(engine: Engine, role: Role, thing: str) -> list[dict[str, Any]]:
    """The events of a class and its rendition, or of a record's renditions."""
    journal = teacher_tables.journal if role == "teacher" else streamer_tables.journal
    with transaction(engine) as connection:
        stems: set[str] = set()
        if role == "teacher":
            stems = {one.stem for one in bookings.by_id(connection, [thing]).values()}
        else:
            stems = {one.stem for one in airings.by_id(connection, [thing]).values()}
        found = events.of_thing(connection, journal, class_id=thing, stems=stems)
        if not stems:
            found += events.of_record(connection, journal, thing)
    return [
        {
            "at": one.at,
            "host": one.host,
            "what": one.what,
            "class_id": one.class_id,
            "rendition": one.stem,
            "detail": one.detail,
        }
        for one in found
    ]


def event_line(event: dict[str, Any]) -> str:
    """One event for people."""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["at"]))
    thing = event["class_id"] or event["rendition"] or ""
    return f"{at}  {event['host']}  {thing}: {event['what']}{'. ' + event['detail'] if event['detail'] else ''}"


def booked(engine: Engine, class_id: str) -> tuple[Booked, Making | None] | None:
    """How a class stands at its teacher, and the rendition that it names; None where it is not known."""
    with transaction(engine) as connection:
        one = bookings.by_id(connection, [class_id]).get(class_id)
        if one is None:
            return None
        answered = select(orders.c.answered_at).where(orders.c.class_id == class_id)
        lost = select(streamers.c.lost_at).where(streamers.c.name == one.streamer)
        found = Booked(
            class_id,
            one.state,
            one.stem,
            one.start_time,
            one.end_time,
            one.code,
            one.message,
            one.streamer,
            connection.execute(answered).scalar_one() is not None,
            connection.execute(lost).scalar_one_or_none(),
        )
        return found, _making(connection, one)


def _making(connection: Connection, one: Order) -> Making | None:
    columns = (videos.c.status, videos.c.backend, videos.c.attempt, videos.c.deadline)
    mine = (videos.c.record_id == one.record_id) & (videos.c.resolution == one.resolution)
    row = connection.execute(select(*columns).where(mine)).one_or_none()
    if row is None:
        return None
    backend = Backend(row.backend) if row.backend else None
    return Making(RenditionState.read(row.status), backend, row.attempt, row.deadline)


def cited(engine: Engine, class_id: str) -> Cited | None:
    """How a class stands at its streamer; None where it is not known."""
    with transaction(engine) as connection:
        one = airings.by_id(connection, [class_id]).get(class_id)
    if one is None:
        return None
    return Cited(class_id, one.state, one.stem, one.start_time, one.end_time, one.code, one.message, one.lost)


def kept_since(engine: Engine, role: Role, class_id: str) -> float | None:
    """Since when (epoch seconds) a message about a class waits in the inbox; None where none does."""
    journal = teacher_tables.journal if role == "teacher" else streamer_tables.journal
    table = journal.inbox
    with transaction(engine) as connection:
        new = connection.execute(select(table.c.received_at, table.c.body).where(table.c.state == InboxState.NEW))
        return min((float(at) for at, body in new if json.dumps(class_id) in body), default=None)
