"""Reads the facts of an as-run report: the classes of a span, what was sent of them, transcoding times."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Select, func, select

from lectern.effects.rows import as_run
from lectern.effects.rows.bookings import readable
from lectern.effects.rows.timetable import Span, begins_in
from lectern.facts import AsRun, Planned
from lectern.model.tables.teacher import orders, videos
from lectern.states import BookingState, RenditionState
from lectern.stems import stem

_NAMES = (
    *("class_id", "institution_id", "record_id", "resolution", "url_stem"),
    *("streamer", "start_time", "end_time", "state", "message"),
)
_COLUMNS = tuple(orders.c[name] for name in _NAMES)


def booked(connection: Connection, span: Span) -> Iterator[Planned]:
    """The classes of *span*, by their start; an unreadable one is logged, and hides no other."""
    wanted = select(*_COLUMNS).where(begins_in(span)).order_by(orders.c.start_time, orders.c.class_id)
    yield from (planned for _, planned in readable(connection.execute(wanted), _planned))


def _planned(row: Any) -> Planned:  # noqa: ANN401 (a row of SQLAlchemy)
    class_id, of, record_id, resolution, named, streamer, start, end, state, why = row
    name = named or (stem(record_id, resolution) if record_id is not None else "")
    return Planned(class_id, of or "", name, streamer or "", start, end, BookingState(state), why or "")


def parts(connection: Connection, span: Span) -> dict[str, list[AsRun]]:
    """The parts that were sent of each class of *span*, in time order."""
    return as_run.of_classes(connection, select(orders.c.class_id).where(begins_in(span)))


def transcoding_s(connection: Connection, span: Span) -> dict[str, float]:
    """The seconds from request to result of the renditions made in *span*, by the institution that booked each first.

    A rendition without a booking counts for an institution with an empty name.
    """
    ended = videos.c.updated_at
    made = (videos.c.status == RenditionState.SUCCESS) & (ended >= span.since) & (ended < span.until)
    began = func.coalesce(videos.c.begun_at, videos.c.requested_at, ended)
    first = _first_institution().scalar_subquery()
    found: dict[str, float] = {}
    for of, seconds in connection.execute(select(first, ended - began).where(made)):
        if span.institution is None or span.institution == of:
            found[of or ""] = found.get(of or "", 0.0) + max(0.0, float(seconds))
    return found


def _first_institution() -> Select[Any]:
    its = (orders.c.record_id == videos.c.record_id) & (orders.c.resolution == videos.c.resolution)
    return select(orders.c.institution_id).where(its).order_by(orders.c.received_at).limit(1).correlate(videos)
