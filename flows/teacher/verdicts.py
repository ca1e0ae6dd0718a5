"""What a booking comes to: placed on a streamer, refused, answered; shared by the teacher's flows."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from prefect.client.schemas.objects import State
from prefect.states import Completed
from redis.exceptions import RedisError
from sqlalchemy import Connection

from flows.batch import PUT_BACK, Batch
from flows.host import Host, log
from lectern import errors, outgoing
from lectern.decide.placement import place
from lectern.effects.rows import bookings, events, inbox, leases, outbox
from lectern.effects.rows.bookings import Outcome
from lectern.errors import ErrorCode, Malformed, TryAgain
from lectern.facts import Event, Kept, Order
from lectern.messages import Alarm, Message, Release
from lectern.outgoing import Kind, Outgoing
from lectern.settings import TeacherSettings
from lectern.states import BookingState

Teacher = Host[TeacherSettings]
AGAIN_S = 2.0
FIRST_STREAMER_S = 300.0
"""Seconds for which a teacher that never had a streamer keeps bookings: a rollout brings the first one after it."""

BEATS = 2
"""After so many intervals of heartbeats with Redis there (again), every living streamer has been heard."""


async def living(host: Teacher) -> list[str]:
    """The streamers that were heard of lately, by name.

    Raises TryAgain where that can not be known: while Redis is away, in the first seconds after it came back, and for
    some minutes where there was never a streamer yet.
    """
    settings = host.settings
    try:
        found = await host.bus.alive(settings.streamers_key, settings.streamer_lost_after_s)
    except (RedisError, OSError) as error:
        raise TryAgain(f"the streamers' heartbeats can not be read: {error}") from error
    # A Redis that was started anew has forgotten the beats; we have not.
    alive = sorted({*found, *host.living_now()})
    listened_s = time.monotonic() - host.listens_since
    if not alive and listened_s < BEATS * settings.heartbeat_interval_s:
        raise TryAgain("no streamer was heard of yet")
    if not alive and listened_s < FIRST_STREAMER_S and not await host.look(leases.holders):
        raise TryAgain("no streamer of this release has ever been leased here; is one about to be rolled out?")
    return alive


async def put_back(host: Teacher, inbox_ids: Sequence[int], error: TryAgain) -> State[None]:
    """Messages that can not be handled before Redis is back go back to the inbox, as if they had just come."""
    log.warning("%d messages wait in the inbox: %s", len(inbox_ids), error.message)
    await host.commit(inbox.put_off, host.journal, inbox_ids, time.time() + AGAIN_S)
    return Completed(name=PUT_BACK, message=f"{len(inbox_ids)} messages wait: {error.message}")


def proceed(
    connection: Connection,
    host: Teacher,
    going: Sequence[tuple[Order, str]],
    batch: Batch,
    alive: list[str],
    now: float,
) -> None:
    """Choose a streamer for each class and tell it; refuse what has ended, or where none is alive."""
    open_ = [(order, url) for order, url in going if order.end_time > now]
    over = [Refusal(order, errors.ENDED, "it ended before its rendition was there") for order, _ in going]
    refuse_all(connection, host, [one for one in over if one.order.end_time <= now], batch, now)
    loads = bookings.loads(connection, alive, now)
    chosen = place([order.stem for order, _ in open_], loads, host.settings.streamer_load_slack)
    placed: list[tuple[str, str, str]] = []
    sending: list[Outgoing] = []
    noted: list[Event] = []
    nowhere: list[Refusal] = []
    for (order, url), streamer in zip(open_, chosen, strict=True):
        if streamer is None:
            nowhere.append(Refusal(order, *outgoing.no_streamer(order.stem), alarm=True))
            continue
        placed.append((order.class_id, streamer, url))
        prepare = outgoing.prepare(order.payload, url, order.placement + 1)
        sending.append(to_streamer(host, streamer, prepare, order.class_id))
        noted.append(Event("placed", order.class_id, order.stem, f"on {streamer}"))
        batch.row(order.class_id, "proceed", where=streamer, detail=order.stem)
    refuse_all(connection, host, nowhere, batch, now)
    bookings.place(connection, placed, now)
    outbox.put(connection, host.journal, sending, now)
    events.note(connection, host.journal, host.settings.name, noted, now)


def place_again(
    connection: Connection,
    host: Teacher,
    orders: Sequence[Order],
    alive: Sequence[str],
    batch: Batch,
    now: float,
    why: str,
    *,
    refused: bool,
) -> None:
    """Take the classes from their streamers, and give each to another of *alive* that has not *refused* it.

    The platform is not told of it. One that nobody can take is broken and alarmed where the platform was promised it,
    else it is refused.
    """
    no = leases.refused_by(connection, [order.class_id for order in orders])
    loads = bookings.loads(connection, alive, now)
    for order in orders:
        open_to = {name: load for name, load in loads.items() if name not in {*no[order.class_id], order.streamer}}
        (chosen,) = place([order.stem], open_to, host.settings.streamer_load_slack)
        leases.note_move(connection, order.class_id, order.streamer or "", order.placement, now, refused=refused)
        gone = Release(class_id=order.class_id, placement=order.placement)
        outbox.put(connection, host.journal, [to_streamer(host, order.streamer or "", gone, order.class_id)], now)
        if chosen is None:
            _nowhere(connection, host, order, why, batch, now)
            continue
        loads[chosen] += 1
        if order.state is BookingState.READY:
            bookings.close(connection, order, BookingState.PLACED, now)
        bookings.place(connection, [(order.class_id, chosen, order.url or "")], now)
        prepare = outgoing.prepare(order.payload, order.url or "", order.placement + 1)
        outbox.put(connection, host.journal, [to_streamer(host, chosen, prepare, order.class_id)], now)
        moved = Event("moved", order.class_id, order.stem, f"from {order.streamer} to {chosen}: {why}")
        events.note(connection, host.journal, host.settings.name, [moved], now)
        batch.row(order.class_id, "moved", where=chosen, detail=f"from {order.streamer}: {why}")


def _nowhere(connection: Connection, host: Teacher, order: Order, why: str, batch: Batch, now: float) -> None:
    if order.promised_at is None and order.state is not BookingState.READY:
        refuse(connection, host, order, errors.NO_STREAMER, why, batch, now, alarm=True)
        return
    code = errors.NOT_MOVED
    bookings.close(connection, order, BookingState.BROKEN, now, code=code.number, message=why)
    cry = outgoing.alarm(
        code,
        f"{order.class_id}: {why}; no other streamer can take it",
        now,
        host.settings.name,
        class_id=order.class_id,
        record_id=order.record_id,
        resolution=order.resolution,
    )
    outbox.put(connection, host.journal, [host.alarm(cry)], now)
    noted = Event("broken", order.class_id, order.stem, f"{code.number}: {why}; no other streamer can take it")
    events.note(connection, host.journal, host.settings.name, [noted], now)
    batch.row(order.class_id, BookingState.BROKEN, code=code.number, detail=why)


def refuse(
    connection: Connection,
    host: Teacher,
    order: Order,
    code: ErrorCode,
    why: str,
    batch: Batch,
    now: float,
    *,
    alarm: bool = False,
) -> None:
    """Refuse a class, once, with its code; an answer for each time it was booked."""
    refuse_all(connection, host, [Refusal(order, code, why, alarm)], batch, now)


@dataclass(frozen=True)
class Refusal:
    """Why a class is refused."""

    order: Order
    code: ErrorCode
    why: str
    alarm: bool = False


def refuse_all(connection: Connection, host: Teacher, refused: Sequence[Refusal], batch: Batch, now: float) -> None:
    """Refuse each class, once, with its code; an answer for each time it was booked."""
    out: list[Outgoing] = []
    noted: list[Event] = []
    for one in refused:
        order, number = one.order, one.code.number
        out += [answer(host, order, number, one.why)] * order.deliveries
        if one.alarm:
            out.append(host.alarm(_alarm(host, one, now)))
        noted.append(Event("refused", order.class_id, order.stem, f"{number}: {one.why}"))
        batch.row(order.class_id, "refuse", code=number, detail=one.why)
    outcomes = [Outcome(one.order, BookingState.REFUSED, one.code.number, one.why) for one in refused]
    bookings.close_all(connection, outcomes, now)
    outbox.put(connection, host.journal, out, now)
    events.note(connection, host.journal, host.settings.name, noted, now)


def _alarm(host: Teacher, one: Refusal, now: float) -> Alarm:
    order = one.order
    return outgoing.alarm(
        one.code,
        f"{order.class_id}: {one.why}",
        now,
        host.settings.name,
        class_id=order.class_id,
        record_id=order.record_id,
        resolution=order.resolution,
    )


def answer(host: Teacher, order: Order, code: int, why: str) -> Outgoing:
    """The answer to a booking."""
    message = outgoing.answer(order.class_id, code, why, order.streamer)
    return Outgoing(host.settings.order_result_channel, Kind.CHANNEL, message, order.class_id)


def give_answer(
    connection: Connection, host: Teacher, order: Order, code: int, why: str, now: float, *, times: int | None = None
) -> None:
    """Put the answer to a booking in the outbox, as often as the booking came."""
    outbox.put(connection, host.journal, [answer(host, order, code, why)] * (times or order.deliveries), now)


def to_streamer(host: Teacher, streamer: str, message: Message, class_id: str | None) -> Outgoing:
    """A message for one streamer."""
    return Outgoing(host.settings.streamer_stream.format(name=streamer), Kind.STREAM, message, class_id)


def waiting_key(host: Teacher, order: Order) -> str:
    """The Redis list on which a class waits."""
    return host.settings.waiting_key.format(record_id=order.record_id, resolution=order.resolution)


def bury(connection: Connection, host: Teacher, kept: Kept, error: Malformed, batch: Batch, now: float) -> None:
    """A malformed message: a 400 answer where its class can be read and is not booked, else a dead letter."""
    known = bookings.by_id(connection, [error.class_id]) if error.class_id else {}
    answerable = error.class_id is not None and not known and kept.command == "order"
    if answerable and error.class_id:
        message = outgoing.answer(error.class_id, errors.MALFORMED.number, error.message)
        out = Outgoing(host.settings.order_result_channel, Kind.CHANNEL, message, error.class_id)
        outbox.put(connection, host.journal, [out], now)
    inbox.bury(connection, host.journal, kept, error.message, host.settings.dead_letter_stream, now)
    code = errors.MALFORMED if answerable else errors.DEAD_LETTER
    cry = outgoing.alarm(code, error.message, now, host.settings.name, class_id=error.class_id)
    outbox.put(connection, host.journal, [host.alarm(cry)], now)
    events.note(
        connection, host.journal, host.settings.name, [Event("malformed", error.class_id, detail=error.message)], now
    )
    batch.row(error.class_id or "?", "malformed", code=code.number, detail=error.message)
