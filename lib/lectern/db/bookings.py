"""The teacher's bookings, the revisions of changed classes, and cancels that wait for a confirmation."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from pydantic_core import from_json, to_json
from sqlalchemy import ColumnElement, Connection, Integer, bindparam, func, literal_column, select, update

from lectern.db import transcodings
from lectern.db.engine import bind_list, in_list, insert_many, rows_of
from lectern.decide.booking import BookingFacts, contenders, is_listed
from lectern.model.facts import Order, Slot
from lectern.model.plan import NEW, Changes, new_row
from lectern.model.tables.shared import sentence
from lectern.model.tables.teacher import IS_CLASS, CancelRow, cancels, class_events, journal, orders
from lectern.states import BOOKING_OVER, IN_HAND, ON_STREAMER, OPEN, BookingState, InboxState, Resolution
from lectern.wire.fields import called, class_of
from lectern.wire.messages import Booking
from lectern.wire.parser import fields_of

log = logging.getLogger("lectern")
T = TypeVar("T")
COUNTED_S = 86_400.0
"""Seconds after its arrival for which a booking that is over is still counted."""

TOLD_AGAIN_S = 60.0
TOLD_AGAIN_WITHIN_S = 3600.0
"""Least and most seconds until a cancel is sent again; in between, the pause is as long as it has waited so far."""

NEAR_SHARE = 0.1
"""Greatest part of the time until its start after which a class is sent again to a streamer that reports nothing."""

_FIELDS = tuple(field.name for field in fields(Order))
_COLUMNS = tuple(sentence(orders, name) if name == "message" else orders.c[name] for name in _FIELDS)
_LIVE = orders.c.end_time > bindparam("now")
_BY_ID = select(*_COLUMNS).where(in_list(orders.c.class_id))
_TAKEN = [
    select(stream, orders.c.class_id, orders.c.start_time, orders.c.end_time).where(
        in_list(stream), _LIVE, orders.c.state.not_in(BOOKING_OVER)
    )
    for stream in (orders.c.stream, orders.c.backup_stream)
]
_HAD = select(orders.c.streamer, func.count()).where(orders.c.state.in_(ON_STREAMER), _LIVE).group_by(orders.c.streamer)
_WAITING = (
    select(*_COLUMNS)
    .where(
        orders.c.record_id == bindparam("record_id"),
        orders.c.resolution == bindparam("resolution"),
        orders.c.state == BookingState.WAITING,
    )
    .order_by(orders.c.received_at, orders.c.class_id)
)
_FIRST = in_list(orders.c.class_id) & orders.c.answered_at.is_(None)
_UNANSWERED = select(orders.c.received_at).where(_FIRST)
_ANSWERED = update(orders).where(_FIRST).values(answered_at=bindparam("at"))
_PROMISED = update(orders).where(_FIRST).values(promised_at=bindparam("at"))


def _order(row: Any) -> Order:  # noqa: ANN401 (a row of SQLAlchemy)
    """The booking in a row; raises ValueError if the row has an unknown state or resolution."""
    class_id, state, payload, record_id, resolution, *rest = row
    size = Resolution(resolution) if resolution else None
    return Order(class_id, BookingState(state), payload, record_id, size, *rest)


def readable(rows: Iterable[Any], value: Callable[[Any], T]) -> Iterator[tuple[Any, T]]:
    """Each row of a class with its *value*; an unreadable one is logged, and hides no other."""
    for row in rows:
        try:
            yield row, value(row)
        except ValueError as error:
            log.error("%s: its booking cannot be read, and is passed over: %s", row.class_id, error)


def _orders(rows: Iterable[Any]) -> list[Order]:
    return [order for _, order in readable(rows, _order)]


def by_id(connection: Connection, class_ids: Sequence[str]) -> dict[str, Order]:
    """The known bookings among *class_ids*, by class_id; raises ValueError if one cannot be read."""
    if not class_ids:
        return {}
    return {row.class_id: _order(row) for row in connection.execute(_BY_ID, bind_list(class_ids))}


def readable_among(connection: Connection, class_ids: Sequence[str]) -> dict[str, Order]:
    """The known bookings among *class_ids* that can be read, by class_id: for work on many classes at once."""
    return {order.class_id: order for order in _orders(connection.execute(_BY_ID, bind_list(class_ids)))}


def where(connection: Connection, such: ColumnElement[bool]) -> list[Order]:
    """At most a thousand of the bookings that fulfil the condition *such*."""
    return _orders(connection.execute(select(*_COLUMNS).where(such).limit(1000)))


def taken(connection: Connection, booked: Iterable[Booking], now: float) -> dict[str, list[Slot]]:
    """The classes that have not ended, and are to be aired, on the streams of *booked*."""
    streams = {stream for booking in booked for stream in booking.streams}
    if not streams:
        return {}
    slots: dict[str, list[Slot]] = {}
    for wanted in _TAKEN:
        for stream, class_id, start, end in connection.execute(wanted, {**bind_list(streams), "now": now}):
            slots.setdefault(stream, []).append(Slot(class_id, start, end))
    return slots


def facts(
    connection: Connection, changes: Changes, booked: Sequence[Booking], alive: Collection[str] = ()
) -> BookingFacts:
    """What must be known to decide *booked*; *changes* has those that are there already, *alive* can take classes."""
    now = changes.now
    unlisted = {booking.key for booking in booked if not is_listed(booking) and booking.key is not None}
    renditions = transcodings.states(connection, unlisted) if unlisted else {}
    may_go = contenders(booked, changes.orders, renditions, now)
    return BookingFacts(
        changes.orders,
        renditions,
        taken(connection, may_go, now),
        transcodings.least_s(connection, changes.settings) if unlisted else 0.0,
        loads(connection, now, alive) if may_go and alive else dict.fromkeys(alive, 0),
        cancelled_before(connection, [booking.class_id for booking in booked], now),
    )


def waiting_for(connection: Connection, record_id: int, resolution: Resolution) -> list[Order]:
    """The classes that wait for a rendition, in the order they came."""
    wanted = {"record_id": record_id, "resolution": resolution}
    return _orders(connection.execute(_WAITING, wanted))


def loads(connection: Connection, now: float, alive: Iterable[str] | None = None) -> dict[str, int]:
    """Number of open classes by streamer: by each of those *alive*, or else by each that has one."""
    numbers = {str(name): int(number) for name, number in connection.execute(_HAD, {"now": now})}
    return numbers if alive is None else {name: numbers.get(name, 0) for name in alive}


def on(connection: Connection, streamer: str, now: float) -> list[Order]:
    """The not yet ended classes of *streamer*, in the order in which they begin."""
    wanted = (orders.c.streamer == streamer) & orders.c.state.in_(ON_STREAMER) & (orders.c.end_time > now)
    return _orders(connection.execute(select(*_COLUMNS).where(wanted).order_by(orders.c.start_time)))


def add(connection: Connection, booked: Sequence[tuple[Booking, BookingState]], now: float) -> None:
    """Insert bookings, each in the given state, that nobody has decided yet or that another program took."""
    rows = [new_row(booking, replace(Order.of(booking), state=state), now) for booking, state in booked]
    insert_many(connection, orders, NEW, rows)


def answered(connection: Connection, class_ids: Sequence[str], now: float) -> list[float]:
    """Note that the answers of *class_ids* were heard at *now* (epoch seconds), by whichever way was the first.

    Returns the seconds that each first answer took, as the metrics have them, too.
    """
    if not class_ids:
        return []
    from lectern import metrics  # noqa: PLC0415 (what only looks does without it)

    ids = bind_list(class_ids)
    took = [now - float(received_at) for received_at in connection.execute(_UNANSWERED, ids).scalars()]
    connection.execute(_ANSWERED, {**ids, "at": now})
    for seconds in took:
        metrics.ANSWER_SECONDS.observe(seconds)
    return took


def over_unheard(connection: Connection, class_ids: Sequence[str], now: float) -> set[str]:
    """The classes of *class_ids* that are over at *now* (epoch seconds), and whose answer was never sent."""
    wanted = select(orders.c.class_id).where(_FIRST, orders.c.end_time <= now)
    return set(connection.execute(wanted, bind_list(class_ids)).scalars())


def promised_late(connection: Connection, class_ids: Iterable[str], now: float) -> None:
    """Note that the classes were answered after their end, with a refusal; a second delivery is answered so, too."""
    connection.execute(_PROMISED, {**bind_list(class_ids), "at": now})


def overdue_waiters(connection: Connection, before: float) -> list[Order]:
    """The classes that have waited since before *before* (epoch seconds), and for which no alarm was raised."""
    late = (orders.c.state == BookingState.WAITING) & (orders.c.received_at < before) & orders.c.warned_at.is_(None)
    return where(connection, late)


def still_overdue(connection: Connection) -> bool:
    """Whether a class waits for which that alarm was raised."""
    warned = (orders.c.state == BookingState.WAITING) & orders.c.warned_at.is_not(None)
    return connection.execute(select(orders.c.class_id).where(warned).limit(1)).first() is not None


def unreported(connection: Connection, before: float, now: float) -> list[Order]:
    """The classes to be sent again: placed before *before* (epoch seconds), and nothing was reported about them since.

    Also the revisions that were to be applied before then, and the classes that ended before then: their streamers
    repeat how they ended. A download may wait for the night, so the pause is as long as the class has waited so far,
    but at most TOLD_AGAIN_WITHIN_S, and at most NEAR_SHARE of the time until its start.
    """
    asked = ((orders.c.state == BookingState.PLACED) | ~IS_CLASS) & (orders.c.end_time > now)
    silent_s, left_s = now - orders.c.updated_at, orders.c.start_time - orders.c.updated_at
    is_due = (silent_s >= TOLD_AGAIN_WITHIN_S) | (silent_s >= NEAR_SHARE * left_s)
    is_due |= silent_s >= orders.c.updated_at - orders.c.received_at
    is_over = IS_CLASS & (orders.c.end_time < before)
    silent = orders.c.state.in_(ON_STREAMER) & (orders.c.updated_at < before)
    return where(connection, silent & (is_over | asked & is_due))


def unended(connection: Connection, before: float) -> list[Order]:
    """The classes that ended before *before* (epoch seconds), and still wait, or whose end no streamer has reported."""
    over = orders.c.state.in_(IN_HAND) & (orders.c.end_time < before) & IS_CLASS
    return where(connection, over)


def ends_untold(connection: Connection, began_after: float, ended_before: float) -> list[Order]:
    """The classes that ended, or were cancelled, by then, and of whose end the platform was not told: it was put off.

    Times are epoch seconds.
    """
    told = select(class_events.c.id).where(
        class_events.c.class_id == orders.c.class_id, class_events.c.event == "ended"
    )
    waits = select(cancels.c.class_id).where(cancels.c.class_id == orders.c.class_id, cancels.c.streamer.is_not(None))
    # An expression: else SQLite would read all classes that ever ended so, by the index of states.
    put_off = func.coalesce(orders.c.state, "").in_(
        (BookingState.AIRED_WITH_GAPS, BookingState.BROKEN, BookingState.CANCELLED)
    )
    was_cancelled = (orders.c.state == BookingState.CANCELLED) & (orders.c.updated_at < ended_before)
    is_over = (orders.c.end_time < ended_before) | was_cancelled
    its_time = orders.c.start_time.between(began_after, ended_before)
    return where(connection, put_off & its_time & is_over & IS_CLASS & ~told.exists() & ~waits.exists())


def unready(connection: Connection, received_before: float, now: float, until: float) -> list[Order]:
    """The classes that begin between *now* and *until*, were booked before *received_before*, and are not ready."""
    near = (orders.c.start_time > now) & (orders.c.start_time <= until) & (orders.c.received_at < received_before)
    near &= IS_CLASS
    return _orders(connection.execute(select(*_COLUMNS).where(orders.c.state.in_(OPEN - {BookingState.READY}), near)))


def latest_payload(connection: Connection, record_id: int) -> str | None:
    """The latest booking of a record, in wire form; None if there is none."""
    wanted = (
        select(orders.c.class_id, orders.c.payload)
        .where(orders.c.record_id == record_id)
        .order_by(orders.c.received_at.desc(), orders.c.class_id)
        .limit(1)
    )
    row = connection.execute(wanted).one_or_none()
    # Revisions and second airings are kept under ids that no booking on the wire can have.
    payload = None if row is None else from_json(row.payload) | {"class_id": class_of(row.class_id)}
    return None if payload is None else to_json(payload).decode()


def oldest_waiting(connection: Connection) -> tuple[str, float] | None:
    """The class that has waited longest, and since when (epoch seconds); None if none waits."""
    wanted = (
        select(orders.c.class_id, orders.c.received_at)
        .where(orders.c.state == BookingState.WAITING)
        .order_by(orders.c.received_at)
        .limit(1)
    )
    row = connection.execute(wanted).one_or_none()
    return None if row is None else (called(row.class_id), float(row.received_at))


def counts(connection: Connection, now: float) -> Mapping[tuple[str, int], int]:
    """Number of bookings by state and code: bookings that are not over, and bookings of the last COUNTED_S.

    Bookings that are over are kept for months: counting all of them would take longer each day. A revision is none: one
    that is in force is *cancelled*, and its class is not.
    """
    # Grouped by an expression: else SQLite walks through all rows by their index, in the order of their states.
    coded = literal_column("coalesce(code, 0)", Integer)
    of_each = select(orders.c.state, coded, func.count()).where(IS_CLASS)
    late = orders.c.state.not_in(OPEN) & (orders.c.received_at >= now - COUNTED_S)
    numbers: Counter[tuple[str, int]] = Counter()
    for which in (orders.c.state.in_(OPEN), late):
        for state, code, number in connection.execute(of_each.where(which).group_by(coded, orders.c.state)):
            numbers[str(state), int(code)] += int(number)
    return numbers


_REVISIONS = select(*_COLUMNS).where(in_list(orders.c.revises))


def revisions_of(connection: Connection, class_ids: Sequence[str]) -> dict[str, Order]:
    """The readable revisions of *class_ids* by their own ids, including revisions that are in force or refused."""
    if not class_ids:
        return {}
    return {order.class_id: order for order in _orders(connection.execute(_REVISIONS, bind_list(class_ids)))}


def booked_among(connection: Connection, class_ids: Sequence[str]) -> set[str]:
    """The classes among *class_ids* that are booked, also those whose rows cannot be read."""
    return set(
        connection.execute(select(orders.c.class_id).where(in_list(orders.c.class_id)), bind_list(class_ids)).scalars()
    )


def changes_before(connection: Connection, asked: Mapping[int, str]) -> set[int]:
    """The messages among *asked*, changes with their classes, behind an earlier one of their class in the inbox."""
    inbox = journal.inbox
    wanted = select(inbox.c.id, inbox.c.body).where(
        inbox.c.state == InboxState.NEW, inbox.c.command == "change", inbox.c.id < max(asked, default=0)
    )
    first: dict[str, int] = {}
    for id_, body in connection.execute(wanted.order_by(inbox.c.id)):
        named = fields_of(body).get("class_id")  # of an odd message it may be a list
        if id_ not in asked and isinstance(named, str):
            first.setdefault(named, id_)
    return {id_ for id_, class_id in asked.items() if first.get(class_id, id_) < id_}


def forsaken_revisions(connection: Connection, before: float) -> list[Order]:
    """The revisions that still wait although their class is over, or does not exist.

    One that its streamer is to apply waits for its report until *before*: the end of its class may have overtaken it.
    """
    class_orders = orders.alias()
    goes_on = class_orders.c.state.in_(IN_HAND)
    reports = (orders.c.state == BookingState.READY) & (class_orders.c.updated_at >= before)
    alive = (
        select(class_orders.c.class_id).where(class_orders.c.class_id == orders.c.revises, goes_on | reports).exists()
    )
    return where(connection, orders.c.revises.is_not(None) & orders.c.state.in_(IN_HAND) & ~alive)


def unconfirmed_cancels(connection: Connection, class_ids: Sequence[str]) -> dict[tuple[str, str], int]:
    """The classes among *class_ids* whose cancel a streamer has not confirmed, each with it: how often it was asked."""
    wanted = select(cancels.c.class_id, cancels.c.streamer, cancels.c.deliveries).where(
        in_list(cancels.c.class_id), cancels.c.streamer.is_not(None)
    )
    return {(row.class_id, row.streamer): row.deliveries for row in connection.execute(wanted, bind_list(class_ids))}


def cancelled_before(connection: Connection, class_ids: Sequence[str], now: float) -> set[str]:
    """The classes among *class_ids* that were cancelled before they were booked; mostly this is one cheap query."""
    waits = cancels.c.streamer.is_(None) & (cancels.c.until > now)
    if not class_ids or connection.execute(select(cancels.c.class_id).where(waits).limit(1)).first() is None:
        return set()
    wanted = select(cancels.c.class_id).where(waits, in_list(cancels.c.class_id))
    return set(connection.execute(wanted, bind_list(class_ids)).scalars())


def cancels_to_resend(connection: Connection, now: float) -> list[CancelRow]:
    """The cancels to be sent to their streamers again: the pause is as long as each has waited, within the bounds."""
    silent_s = now - cancels.c.told_at
    is_due = (silent_s >= TOLD_AGAIN_WITHIN_S) | (silent_s >= cancels.c.told_at - cancels.c.cancelled_at)
    which = cancels.c.streamer.is_not(None) & (cancels.c.until > now) & (silent_s >= TOLD_AGAIN_S)
    return _read(connection, which & is_due)


def cancels_unconfirmed_by(connection: Connection, streamer: str, now: float) -> list[CancelRow]:
    """All cancels that *streamer* has not confirmed."""
    return _read(connection, (cancels.c.streamer == streamer) & (cancels.c.until > now), None)


def _read(connection: Connection, which: ColumnElement[bool], most: int | None = 1000) -> list[CancelRow]:
    return rows_of(connection, select(CancelRow).where(which).order_by(cancels.c.told_at).limit(most))


def cancels_without_end(connection: Connection, now: float) -> list[CancelRow]:
    """The cancels that no streamer has confirmed until the end of their classes."""
    return _read(connection, cancels.c.streamer.is_not(None) & (cancels.c.until <= now))
