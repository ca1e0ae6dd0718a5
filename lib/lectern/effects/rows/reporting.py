"""What a report reads: the classes of a time, what was sent of them, and how long transcoders worked for whom."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select

from lectern.effects.rows.tables.teacher import IS_CLASS, as_runs, orders, videos
from lectern.facts import AsRun
from lectern.states import RenditionState
from lectern.stems import stem

_PART = ("url", "session", "source", "begins", "ends", "position_s", "sent_s", "sent_bytes")


def _its_time(since: float, until: float, institution: str | None) -> ColumnElement[bool]:
    begins = (orders.c.start_time >= since) & (orders.c.start_time < until) & IS_CLASS
    return begins if institution is None else begins & (orders.c.institution_id == institution)


def booked(connection: Connection, since: float, until: float, institution: str | None) -> Iterator[dict[str, Any]]:
    """The classes that begin in a time (epoch seconds), of one institution or of all, by their start."""
    columns = ("class_id", "streamer", "start_time", "end_time", "state", "message")
    more = (orders.c.institution_id, orders.c.record_id, orders.c.resolution, orders.c.url_stem)
    wanted = select(*(orders.c[name] for name in columns), *more).where(_its_time(since, until, institution))
    for row in connection.execute(wanted.order_by(orders.c.start_time, orders.c.class_id)):
        *known, of, record_id, resolution, named = row
        name = named or (stem(record_id, resolution) if record_id is not None else "")
        yield {**dict(zip(columns, known, strict=True)), "institution": of or "", "stem": name}


def parts(connection: Connection, since: float, until: float, institution: str | None) -> dict[str, list[AsRun]]:
    """What was sent of each of these classes, in time order."""
    of_time = select(orders.c.class_id).where(_its_time(since, until, institution))
    columns = (as_runs.c.class_id, *(as_runs.c[name] for name in _PART))
    wanted = select(*columns).where(as_runs.c.class_id.in_(of_time)).order_by(as_runs.c.begins, as_runs.c.id)
    found: dict[str, list[AsRun]] = {}
    for class_id, *part in connection.execute(wanted):
        found.setdefault(class_id, []).append(AsRun(*part))
    return found


def transcoding_s(connection: Connection, since: float, until: float, institution: str | None) -> dict[str, float]:
    """The seconds from request to result of each rendition made in a time, by the institution that asked for it first.

    A rendition without a booking counts for an institution with an empty name.
    """
    made = (videos.c.status == RenditionState.SUCCESS) & (videos.c.updated_at >= since) & (videos.c.updated_at < until)
    began = func.coalesce(videos.c.begun_at, videos.c.requested_at, videos.c.updated_at)
    first = _first_institution().scalar_subquery()
    found: dict[str, float] = {}
    for of, seconds in connection.execute(select(first, videos.c.updated_at - began).where(made)):
        if institution is None or institution == of:
            found[of or ""] = found.get(of or "", 0.0) + max(0.0, float(seconds))
    return found


def _first_institution() -> Select[Any]:
    its = (orders.c.record_id == videos.c.record_id) & (orders.c.resolution == videos.c.resolution)
    return select(orders.c.institution_id).where(its).order_by(orders.c.received_at).limit(1).correlate(videos)
