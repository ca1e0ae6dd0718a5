"""The rows of what was sent of classes, and the facts of an as-run report."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, Select, Table, delete, func, insert, select

from lectern.db.bookings import readable
from lectern.db.timetable import Span, begins_in
from lectern.model.facts import AsRun, Planned
from lectern.model.tables import streamer as at_streamer
from lectern.model.tables import teacher as at_teacher
from lectern.model.tables.shared import sentence
from lectern.model.tables.teacher import orders, videos
from lectern.rendition_ids import stem
from lectern.states import BookingState, RenditionState
from lectern.wire.parser import author_of

# As-run rows, the parts of each class that were really sent: times, position in the recording, session. A streamer
# keeps what its playout reports, a teacher what its streamers report.


_PART = tuple(field.name for field in fields(AsRun))


def keep(connection: Connection, class_id: str, parts: Sequence[AsRun]) -> None:
    """Write down what the playout sent of a class; rows of these parts, and of later ones, are replaced."""
    _keep(connection, at_streamer.as_runs, {"class_id": class_id}, parts)


def keep_of(connection: Connection, streamer: str, class_id: str, parts: Sequence[AsRun]) -> None:
    """Write down what *streamer* reports to have sent of a class; a second report of it changes nothing."""
    _keep(connection, at_teacher.as_runs, {"class_id": class_id, "streamer": streamer}, parts)


def of_class(connection: Connection, class_id: str) -> list[AsRun]:
    """What this streamer sent of a class, in time order."""
    return _read(connection, at_streamer.as_runs, [class_id]).get(class_id, [])


def of_classes(connection: Connection, class_ids: Sequence[str] | Select[Any]) -> dict[str, list[AsRun]]:
    """What the streamers reported of classes, each in time order; a class of which nothing was sent is left out."""
    return _read(connection, at_teacher.as_runs, class_ids)


def _keep(connection: Connection, table: Table, whose: dict[str, str], parts: Sequence[AsRun]) -> None:
    if not parts:
        return
    newer = table.c.begins >= min(part.begins for part in parts) - 0.001
    connection.execute(delete(table).where(newer, *(table.c[name] == value for name, value in whose.items())))
    connection.execute(insert(table), [{**whose, **vars(part)} for part in parts])


def _read(connection: Connection, table: Table, class_ids: Sequence[str] | Select[Any]) -> dict[str, list[AsRun]]:
    by_class: dict[str, list[AsRun]] = {}
    columns = [table.c[name] for name in _PART]
    wanted = select(table.c.class_id, *columns).where(table.c.class_id.in_(class_ids))
    for class_id, *part in connection.execute(wanted.order_by(table.c.begins, table.c.id)):
        by_class.setdefault(class_id, []).append(AsRun(*part))
    return by_class


_NAMES = (
    *("class_id", "institution_id", "record_id", "resolution", "url_stem"),
    *("streamer", "start_time", "end_time", "state", "message", "payload"),
)
_COLUMNS = tuple(sentence(orders, name) if name == "message" else orders.c[name] for name in _NAMES)


def booked(connection: Connection, span: Span) -> Iterator[Planned]:
    """The classes of *span*, by their start; an unreadable one is logged, and hides no other."""
    wanted = select(*_COLUMNS).where(begins_in(span)).order_by(orders.c.start_time, orders.c.class_id)
    yield from (planned for _, planned in readable(connection.execute(wanted), _planned))


def _planned(row: Any) -> Planned:  # noqa: ANN401 (a row of SQLAlchemy)
    class_id, of, record_id, resolution, named, streamer, start, end, state, why, payload = row
    name = named or (stem(record_id, resolution) if record_id is not None else "")
    return Planned(
        class_id, of or "", name, streamer or "", start, end, BookingState(state), why or "", author_of(payload)
    )


def parts(connection: Connection, span: Span) -> dict[str, list[AsRun]]:
    """The parts that were sent of each class of *span*, in time order."""
    return of_classes(connection, select(orders.c.class_id).where(begins_in(span)))


def transcoding_s(connection: Connection, span: Span) -> dict[str, float]:
    """The seconds from request to result of the renditions made in *span*, by the institution that booked each first.

    A rendition without a booking counts for an institution with an empty name.
    """
    ended = videos.c.updated_at
    made = (videos.c.status == RenditionState.SUCCESS) & (ended >= span.since) & (ended < span.until)
    began = func.coalesce(videos.c.begun_at, videos.c.requested_at, ended)
    same = (orders.c.record_id == videos.c.record_id) & (orders.c.resolution == videos.c.resolution)
    of_first = select(orders.c.institution_id).where(same).order_by(orders.c.received_at).limit(1)
    first = of_first.correlate(videos).scalar_subquery()
    sums: dict[str, float] = {}
    for of, seconds in connection.execute(select(first, ended - began).where(made)):
        if span.institution is None or span.institution == of:
            sums[of or ""] = sums.get(of or "", 0.0) + max(0.0, float(seconds))
    return sums
