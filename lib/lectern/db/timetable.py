"""The teacher's timetable and status for people: the classes of a span of time, and counts by state."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, false, func, or_, select, true
from sqlalchemy.orm import Session

from lectern.db import bookings, events, inbox, incidents, outbox, transcodings
from lectern.db.bookings import readable
from lectern.model.facts import AsRun
from lectern.model.tables.shared import sentence
from lectern.model.tables.teacher import IS_CLASS, RenditionRow, orders, streamers, videos
from lectern.model.views import Booked
from lectern.rendition_ids import stem
from lectern.states import OPEN, BookingState, RenditionState
from lectern.wire.parser import author_of

_NAMES = (
    *("class_id", "state", "record_id", "resolution", "url_stem", "start_time", "end_time"),
    *("code", "message", "streamer", "institution_id", "received_at", "updated_at", "answered_at"),
)
_DROPPED = (BookingState.REFUSED, BookingState.CANCELLED)
LONGEST_S = 86_400.0
"""Seconds before a time in which classes are looked for that go on then: more would read the rows of whole weeks."""

_COLUMNS = tuple(sentence(orders, name) if name == "message" else orders.c[name] for name in _NAMES)


def due(connection: Connection, now: float) -> list[Booked]:
    """The classes that should be on air at *now* (epoch seconds): not refused, not cancelled, not ended."""
    its_time = (orders.c.start_time <= now) & (orders.c.end_time > now) & IS_CLASS
    its_time &= orders.c.state.in_((*OPEN, BookingState.BROKEN))
    return _found(connection, _selected(its_time))


def next_class(connection: Connection, now: float) -> Booked | None:
    """The class that begins next after *now* (epoch seconds)."""
    # By an expression: else SQLite reads all open classes by their states. A state that nobody knows is none of OPEN.
    later = (orders.c.start_time > now) & func.coalesce(orders.c.state, "").in_(OPEN) & IS_CLASS
    return next(iter(_found(connection, _selected(later).limit(1))), None)


def waiting(
    connection: Connection, now: float, institution: str | None, limit: int
) -> list[tuple[Booked, RenditionRow | None, float]]:
    """The first *limit* classes that are not ready and have not ended, each with what it waits for and its deadline.

    That is its start, or the deadline of its rendition if that comes before (epoch seconds); they are ordered by it.
    """
    rendition_of = (videos.c.record_id == orders.c.record_id) & (videos.c.resolution == orders.c.resolution)
    rendition_of &= (orders.c.state == BookingState.WAITING) & (videos.c.status == RenditionState.TRANSCODING)
    is_first = videos.c.deadline < orders.c.start_time
    nearest = case((is_first, videos.c.deadline), else_=orders.c.start_time).label("nearest")
    wanted = (
        select(*_COLUMNS, RenditionRow, streamers.c.lost_at, nearest)
        .select_from(orders.outerjoin(videos, rendition_of).outerjoin(streamers, streamers.c.name == orders.c.streamer))
        .where(waits(now, institution))
        .order_by(nearest, orders.c.class_id)
        .limit(limit)
    )
    with Session(connection) as session:
        rows = readable(session.execute(wanted), _booked)
        return [(replace(booked, lost_since=row.lost_at), row.RenditionRow, row.nearest) for row, booked in rows]


def waits(now: float, institution: str | None) -> ColumnElement[bool]:
    """Selects the classes of *institution*, or of all, that are not ready and have not ended at *now*."""
    wait = orders.c.state.in_(OPEN - {BookingState.READY}) & (orders.c.end_time > now) & IS_CLASS
    return wait if institution is None else wait & (orders.c.institution_id == institution)


@dataclass(frozen=True)
class Span:
    """The classes that begin from *since* until *until* (epoch seconds), of one institution or of all."""

    since: float
    until: float
    institution: str | None


def classes(connection: Connection, which: ColumnElement[bool], limit: int, offset: int = 0) -> list[Booked]:
    """The first *limit* of the classes that *which* selects, by their start."""
    return _found(connection, _selected(which).limit(limit).offset(offset))


def number(connection: Connection, which: ColumnElement[bool]) -> int:
    """The number of all classes that *which* selects."""
    return connection.execute(select(func.count()).where(which)).scalar_one()


def page(
    connection: Connection, span: Span, state: BookingState | None, after: tuple[float, str], limit: int
) -> list[Booked]:
    """The first *limit* classes of *span*, in *state* or in any, behind the class that begins *after* this."""
    begins, class_id = after
    further = (orders.c.start_time > begins) | ((orders.c.start_time == begins) & (orders.c.class_id > class_id))
    # A page that lacks rows would be taken for the last one: those that cannot be read are none of it.
    which = begins_in(span) & further & func.coalesce(orders.c.state, "").in_(_STATES)
    which = which if state is None else which & (orders.c.state == state)
    return _found(connection, _selected(which).limit(limit))


ORDERS: Mapping[str, ColumnElement[Any]] = {
    "start": orders.c.start_time,
    "class": orders.c.class_id,
    "institution": orders.c.institution_id,
    "streamer": orders.c.streamer,
    "state": orders.c.state,
}
"""What the classes of a search can be sorted by."""


@dataclass(frozen=True)
class Search:
    """What somebody searches for: *text* is a class, a rendition, an institution, a streamer, a record or a code."""

    text: str = ""
    state: str = ""
    institution: str = ""
    order: str = "start"


def found(connection: Connection, span: Span, wanted: Search, limit: int) -> list[Booked]:
    """The first *limit* classes of *span* that *wanted* means; the class that has its text as name, at any time."""
    first = ORDERS.get(wanted.order, orders.c.start_time)
    which = select(*_COLUMNS).where(meant(span, wanted))
    return _found(connection, which.order_by(first, orders.c.start_time, orders.c.class_id).limit(limit))


def meant(span: Span, wanted: Search) -> ColumnElement[bool]:
    """Selects the classes that `found` gives."""
    which = begins_in(span)
    if wanted.text:
        named = [orders.c[name] for name in ("class_id", "institution_id", "streamer", "url_stem")]
        record, _, resolution = wanted.text.partition("_")
        meant = or_(*(column.icontains(wanted.text, autoescape=True) for column in named))
        if record.isascii() and record.isdecimal() and len(record) < 16:
            its = orders.c.record_id == int(record)
            meant |= its & (orders.c.resolution == resolution.upper()) if resolution else its
            meant |= orders.c.code == int(record) if not resolution and len(record) < 6 else false()
        which &= meant
        mine = IS_CLASS if span.institution is None else IS_CLASS & (orders.c.institution_id == span.institution)
        which |= mine & (orders.c.class_id == wanted.text)
    which &= orders.c.state == wanted.state if wanted.state else true()
    return which & (orders.c.institution_id == wanted.institution) if wanted.institution else which


def not_dropped(span: Span) -> ColumnElement[bool]:
    """Selects the classes of *span* that are neither refused nor cancelled."""
    return begins_in(span) & orders.c.state.not_in(_DROPPED)


def by_streamer(connection: Connection, span: Span) -> dict[str | None, dict[str, int]]:
    """The number of the classes that `overlapping` selects, by streamer and state."""
    counted = select(orders.c.streamer, orders.c.state, func.count()).where(overlapping(span))
    numbers: dict[str | None, dict[str, int]] = {}
    for streamer, state, number in connection.execute(counted.group_by(orders.c.streamer, orders.c.state)):
        numbers.setdefault(streamer, {})[str(state)] = int(number)
    return numbers


def overlapping(span: Span) -> ColumnElement[bool]:
    """Selects the classes that go on in *span*, without those refused and cancelled."""
    return not_dropped(replace(span, since=span.since - LONGEST_S)) & (orders.c.end_time > span.since)


def pusher(connection: Connection, class_id: str, institution: str | None) -> tuple[str, str] | None:
    """The streamer of a class, and the session of its lease; None if no such class of *institution* has a streamer."""
    mine = (orders.c.class_id == class_id) & IS_CLASS
    mine &= true() if institution is None else orders.c.institution_id == institution
    session = select(streamers.c.name, streamers.c.session).join(orders, orders.c.streamer == streamers.c.name)
    row = connection.execute(session.where(mine)).one_or_none()
    return None if row is None else (str(row.name), str(row.session or ""))


def refusals(connection: Connection, span: Span) -> dict[int, int]:
    """The number of refused classes of *span* by code, 0 if a row has none; the most frequent code comes first."""
    refused = begins_in(span) & (orders.c.state == BookingState.REFUSED)
    counted = select(orders.c.code, func.count()).where(refused).group_by(orders.c.code).order_by(func.count().desc())
    return {int(code or 0): int(number) for code, number in connection.execute(counted)}


def outcomes(connection: Connection, span: Span) -> Mapping[str, int]:
    """The number of classes of *span* in each state."""
    counted = select(orders.c.state, func.count()).where(begins_in(span)).group_by(orders.c.state)
    return {str(state): int(number) for state, number in connection.execute(counted)}


def begins_in(span: Span) -> ColumnElement[bool]:
    """Selects the classes of *span*."""
    begins = (orders.c.start_time >= span.since) & (orders.c.start_time < span.until) & IS_CLASS
    return begins if span.institution is None else begins & (orders.c.institution_id == span.institution)


def _selected(which: ColumnElement[bool]) -> Select[Any]:
    return select(*_COLUMNS).where(which).order_by(orders.c.start_time, orders.c.class_id)


def _found(connection: Connection, wanted: Select[Any]) -> list[Booked]:
    return [booked for _, booked in readable(connection.execute(wanted), _booked)]


def _booked(row: Any, by: str = "") -> Booked:  # noqa: ANN401 (a row of SQLAlchemy)
    name = row.url_stem or (stem(row.record_id, row.resolution) if row.record_id is not None else "")
    known = (row.class_id, BookingState(row.state), name, row.start_time, row.end_time, row.code, row.message)
    more = {"answered": row.answered_at is not None, "received_at": row.received_at, "decided_at": row.updated_at}
    return Booked(*known, row.streamer, institution_id=row.institution_id, by=by, **more)


NEAREST = 5
"""Number of renditions under way that are shown, the nearest to their deadline."""

_STATES = frozenset(map(str, BookingState))


def status_of_teacher(connection: Connection, now: float, host: str) -> dict[str, Any]:
    """Counts of bookings and renditions, transcodings under way, open incidents, and what waits in inbox and outbox."""
    oldest = outbox.oldest_unsent(connection)
    waiting = bookings.oldest_waiting(connection)
    renditions = transcodings.counts(connection)
    rows = transcodings.under_way(connection) if RenditionState.TRANSCODING in renditions else []
    under_way = sorted(rows, key=lambda row: row.deadline or float("inf"))
    following = next_class(connection, now)
    by_state = Counter[str]()
    for (state, _), number in bookings.counts(connection, now).items():
        by_state[state] += number
    return {
        "bookings": dict(by_state),
        "oldest_waiting": None if waiting is None else {"class_id": waiting[0], "s": round(now - waiting[1], 1)},
        "incidents": [asdict(one) for one in incidents.open_now(connection, host)],
        "renditions": dict(renditions),
        "under_way_number": len(under_way),
        "under_way": [
            {
                "rendition": row.stem,
                "backend": row.backend,
                "attempt": row.attempt,
                "slack_s": None if row.deadline is None else round(row.deadline - now, 1),
            }
            for row in under_way[:NEAREST]
        ],
        "next": None
        if following is None
        else {
            **{name: getattr(following, name) for name in ("class_id", "streamer", "state")},
            "in_s": following.start_time - now,
        },
        "booked": bookings.loads(connection, now),
        "inbox": inbox.waiting(connection),
        "oldest_unsent_s": None if oldest is None else round(now - oldest, 1),
    }


def planned(connection: Connection, span: Span) -> Iterator[Booked]:
    """The classes of *span* with who booked each, by their start; an unreadable one is logged, and hides no other."""
    wanted = _selected(begins_in(span)).add_columns(orders.c.payload)
    rows = readable(connection.execute(wanted), lambda row: _booked(row, author_of(row.payload)))
    yield from (booked for _, booked in rows)


def parts(connection: Connection, span: Span) -> dict[str, list[AsRun]]:
    """The parts that were sent of each class of *span*, in time order."""
    return events.parts_of(connection, connection.scalars(select(orders.c.class_id).where(begins_in(span))))


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
