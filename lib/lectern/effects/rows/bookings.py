"""The teacher's bookings: what is known of them, and what a plan makes of them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, bindparam, case, func, insert, select, update

from lectern.effects.rows.tables.teacher import orders
from lectern.facts import Known, Order, Slot
from lectern.messages import Booking
from lectern.states import BOOKING_MOVES, BookingState, Resolution, check_move

MAX_DELIVERIES = 10
"""So many answers at most are sent for one booking, however often it is delivered."""

LOADING = (BookingState.PLACED, BookingState.READY)
"""States in which a class weighs on its streamer."""

OVER = (BookingState.REFUSED, BookingState.CANCELLED, BookingState.AIRED)
"""States of a class that will not be pushed."""


_COLUMNS = tuple(orders.c[one.name] for one in fields(Order))

_EACH = update(orders).where(orders.c.class_id == bindparam("of"))
"""One statement for many classes: the driver repeats it, which costs a tenth of as many statements."""


def _order(row: Any) -> Order:  # noqa: ANN401 (a row of SQLAlchemy)
    resolution = Resolution(row.resolution) if row.resolution else None
    return Order(**{**row._mapping, "state": BookingState(row.state), "resolution": resolution})


def by_id(connection: Connection, class_ids: Sequence[str]) -> dict[str, Order]:
    """The bookings of *class_ids* that are known."""
    found = connection.execute(select(*_COLUMNS).where(orders.c.class_id.in_(class_ids)))
    return {row.class_id: _order(row) for row in found}


def known(connection: Connection, class_ids: Sequence[str]) -> dict[str, Known]:
    """What the booking decision asks about *class_ids*."""
    found = by_id(connection, class_ids)
    return {id_: Known(o.state, o.payload, o.code, o.message, o.streamer) for id_, o in found.items()}


def taken(connection: Connection, booked: Iterable[Booking], now: float) -> dict[str, list[Slot]]:
    """The classes that have not ended, and are to be aired, on the streams of *booked*."""
    streams = {one.stream for one in booked}
    if not streams:
        return {}
    mine = orders.c.stream.in_(streams)
    live = (orders.c.end_time > now) & orders.c.state.not_in(OVER)
    columns = (orders.c.stream, orders.c.class_id, orders.c.start_time, orders.c.end_time)
    found: dict[str, list[Slot]] = {}
    for stream, class_id, start, end in connection.execute(select(*columns).where(mine, live)):
        found.setdefault(stream, []).append(Slot(class_id, start, end))
    return found


def waiting_for(connection: Connection, record_id: int, resolution: Resolution) -> list[Order]:
    """The classes that wait for a rendition, in the order they came."""
    wanted = (
        select(*_COLUMNS)
        .where(
            orders.c.record_id == record_id,
            orders.c.resolution == resolution,
            orders.c.state == BookingState.WAITING,
        )
        .order_by(orders.c.received_at, orders.c.class_id)
    )
    return [_order(row) for row in connection.execute(wanted)]


def having(connection: Connection, now: float) -> dict[str, int]:
    """How many not yet ended classes each streamer has that has any."""
    counted = connection.execute(
        select(orders.c.streamer, func.count())
        .where(orders.c.state.in_(LOADING), orders.c.end_time > now)
        .group_by(orders.c.streamer)
    )
    return {str(name): int(number) for name, number in counted}


def loads(connection: Connection, streamers: Iterable[str], now: float) -> dict[str, int]:
    """How many not yet ended classes each of *streamers* has."""
    found = having(connection, now)
    return {name: found.get(name, 0) for name in streamers}


def on(connection: Connection, streamer: str, now: float) -> list[Order]:
    """The not yet ended classes of *streamer*, in the order in which they begin."""
    wanted = (orders.c.streamer == streamer) & orders.c.state.in_(LOADING) & (orders.c.end_time > now)
    return [_order(row) for row in connection.execute(select(*_COLUMNS).where(wanted).order_by(orders.c.start_time))]


def add(
    connection: Connection,
    booked: Sequence[tuple[Booking, BookingState]],
    now: float,
    *,
    refused: Collection[str] = (),
) -> dict[str, Order]:
    """Insert new bookings; returns them as ``by_id`` would. Those *refused* (class_ids) have no stream."""
    rows = [
        {
            "class_id": booking.class_id,
            "institution_id": booking.institution_id,
            "record_id": booking.record_id,
            "url_stem": _url_stem(booking),
            "resolution": booking.video_resolution,
            "start_time": booking.start_time,
            "end_time": booking.end_time,
            "stream": None if booking.class_id in refused else booking.stream,
            "payload": booking.payload,
            "state": state,
            "received_at": now,
            "updated_at": now,
        }
        for booking, state in booked
    ]
    if rows:
        connection.execute(insert(orders), rows)
    return {
        booking.class_id: Order(
            booking.class_id,
            state,
            booking.payload,
            booking.record_id,
            booking.video_resolution,
            booking.start_time,
            booking.end_time,
            url_stem=_url_stem(booking),
        )
        for booking, state in booked
    }


def _url_stem(booking: Booking) -> str | None:
    """The stem of a booking that names no record."""
    return booking.stem if booking.record_id is None else None


def place(connection: Connection, placed: Sequence[tuple[str, str, str]], now: float) -> None:
    """Put (class_id, streamer, url) of each class that proceeds, or is moved: its placement counts up."""
    if placed:
        there = {"streamer": bindparam("to_streamer"), "url": bindparam("from_url"), "state": BookingState.PLACED}
        rows = [{"of": class_id, "to_streamer": streamer, "from_url": url} for class_id, streamer, url in placed]
        connection.execute(_EACH.values(**there, placement=orders.c.placement + 1, updated_at=now), rows)


def promise(connection: Connection, class_ids: Sequence[str], now: float) -> None:
    """The platform is answered with success: there is no other answer after this one."""
    connection.execute(update(orders).where(orders.c.class_id.in_(class_ids)).values(promised_at=now))


@dataclass(frozen=True)
class Outcome:
    """What a booking comes to."""

    order: Order
    state: BookingState
    code: int = 0
    message: str = ""


def close_all(connection: Connection, outcomes: Sequence[Outcome], now: float) -> None:
    """Move each booking to its outcome; raises ForbiddenMove where the tables have no such move."""
    for one in outcomes:
        check_move(BOOKING_MOVES, one.order.class_id, one.order.state, one.state)
    if outcomes:
        values: dict[str, Any] = {
            "state": bindparam("to_state"),
            "code": bindparam("its_code"),
            "message": bindparam("why"),
        }
        rows = [{"of": o.order.class_id, "to_state": o.state, "its_code": o.code, "why": o.message} for o in outcomes]
        connection.execute(_EACH.values(**values, updated_at=now), rows)


def close(
    connection: Connection, order: Order, state: BookingState, now: float, *, code: int = 0, message: str = ""
) -> None:
    """Move one booking to *state* with its outcome; raises ForbiddenMove where the tables have no such move."""
    close_all(connection, [Outcome(order, state, code, message)], now)


def delivered_again(connection: Connection, class_ids: Sequence[str]) -> None:
    """Count second deliveries."""
    more = case((orders.c.deliveries < MAX_DELIVERIES, orders.c.deliveries + 1), else_=orders.c.deliveries)
    if class_ids:
        connection.execute(_EACH.values(deliveries=more), [{"of": class_id} for class_id in class_ids])


def answered(connection: Connection, class_ids: Sequence[str], now: float) -> list[float]:
    """The answers of *class_ids* were sent; returns how long each that was the first one took, in seconds."""
    if not class_ids:
        return []
    first = orders.c.class_id.in_(class_ids) & orders.c.answered_at.is_(None)
    took = [now - row.received_at for row in connection.execute(select(orders.c.received_at).where(first))]
    connection.execute(update(orders).where(first).values(answered_at=now))
    return took


def overdue_waiters(connection: Connection, before: float) -> list[Order]:
    """The classes that wait since before *before* (epoch seconds) and were not alarmed."""
    late = (orders.c.state == BookingState.WAITING) & (orders.c.received_at < before) & orders.c.warned_at.is_(None)
    return [_order(row) for row in connection.execute(select(*_COLUMNS).where(late).limit(1000))]


def warned(connection: Connection, class_ids: Sequence[str], now: float) -> None:
    """An alarm was raised for the waiting classes."""
    connection.execute(update(orders).where(orders.c.class_id.in_(class_ids)).values(warned_at=now))


def unreported(connection: Connection, before: float, now: float) -> list[Order]:
    """The classes placed before *before* whose streamer said nothing."""
    silent = (orders.c.state == BookingState.PLACED) & (orders.c.updated_at < before) & (orders.c.end_time > now)
    return [_order(row) for row in connection.execute(select(*_COLUMNS).where(silent).limit(1000))]


def unended(connection: Connection, before: float) -> list[Order]:
    """The classes that ended before *before*, and of which no streamer said how."""
    over = orders.c.state.in_(LOADING) & (orders.c.end_time < before)
    return [_order(row) for row in connection.execute(select(*_COLUMNS).where(over).limit(1000))]


def touch(connection: Connection, class_ids: Sequence[str], now: float) -> None:
    """The classes were just told to their streamer again."""
    connection.execute(update(orders).where(orders.c.class_id.in_(class_ids)).values(updated_at=now))


def unready(connection: Connection, received_before: float, now: float, until: float) -> list[Order]:
    """The classes that begin between *now* and *until*, were booked before *received_before*, and are not ready."""
    open_ = (BookingState.RECEIVED, BookingState.WAITING, BookingState.PLACED)
    near = (orders.c.start_time > now) & (orders.c.start_time <= until) & (orders.c.received_at < received_before)
    return [_order(row) for row in connection.execute(select(*_COLUMNS).where(orders.c.state.in_(open_), near))]


def latest_payload(connection: Connection, record_id: int) -> str | None:
    """The last booking of a record, in wire form."""
    wanted = (
        select(orders.c.payload)
        .where(orders.c.record_id == record_id)
        .order_by(orders.c.received_at.desc(), orders.c.class_id)
        .limit(1)
    )
    found = connection.execute(wanted).scalar_one_or_none()
    return None if found is None else str(found)


def oldest_waiting(connection: Connection) -> tuple[str, float] | None:
    """The class that waits longest, and since when (epoch seconds)."""
    wanted = (
        select(orders.c.class_id, orders.c.received_at)
        .where(orders.c.state == BookingState.WAITING)
        .order_by(orders.c.received_at)
        .limit(1)
    )
    row = connection.execute(wanted).one_or_none()
    return None if row is None else (str(row.class_id), float(row.received_at))


def counts(connection: Connection) -> Mapping[str, int]:
    """Bookings by state."""
    return {
        str(state): int(number)
        for state, number in connection.execute(select(orders.c.state, func.count()).group_by(orders.c.state))
    }
