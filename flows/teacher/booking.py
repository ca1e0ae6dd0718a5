"""Bookings arrive: wait, proceed or refuse; cancels take them back."""

import time
from collections.abc import Sequence

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from redis.exceptions import RedisError
from sqlalchemy import Connection

from flows import show
from flows.batch import FAILED, Batch, apart, summary
from flows.host import NOWHERE, log, teacher
from flows.teacher import attempts as begin
from flows.teacher import cancels
from flows.teacher.ecs import flow as ecs
from flows.teacher.verdicts import (
    Refusal,
    Teacher,
    bury,
    give_answer,
    living,
    proceed,
    put_back,
    refuse_all,
    waiting_key,
)
from flows.tell import tell
from lectern import errors, outgoing
from lectern.commands import parse
from lectern.decide import booking as decide
from lectern.decide.booking import Limits, Plan
from lectern.effects.rows import bookings, events, inbox, outbox, renditions
from lectern.effects.rows.bookings import Outcome
from lectern.errors import Malformed, TryAgain
from lectern.facts import Attempt, Event, Kept, Order
from lectern.messages import Booking, Cancel, Message
from lectern.settings import TeacherSettings
from lectern.states import Backend, BookingState

Read = dict[int, tuple[Kept, Message | Exception]]
"""Messages by their id in the inbox, and what is wrong with those that are none."""


@flow(name="booking", persist_result=False, result_storage=NOWHERE)
async def booking(inbox_ids: str, dry_run: bool = False) -> State[None]:
    """Decide the bookings and cancels of *inbox_ids*; those handled already are passed over."""
    host, ids = teacher(), inbox.ids_of(inbox_ids)
    try:
        alive = await living(host)
    except TryAgain as error:
        return await put_back(host, ids, error)
    read = await host.look(_read, host, ids)
    found = await apart(ids, lambda some: host.commit(_handle, host, some, read, alive, dry_run))
    batch = Batch()
    for portion in found.done:
        batch.add(portion)
    for inbox_id, why in found.failed:
        batch.row(f"inbox {inbox_id}", FAILED, detail=why)
    if dry_run:
        await show.table("booking-plan", batch.table, "What would be done")
        return Completed(message=f"dry run: {len(batch.table)} messages")
    await tell(host)
    await _keep_waiting_lists(host, batch)
    await _start_transcoding(host, batch.attempts)
    await show.table("booking-batch", batch.table, "What became of each booking")
    return found.state(summary(batch.table), len(ids))


def limits(settings: TeacherSettings) -> Limits:
    """What the booking decision needs of the settings."""
    return Limits(
        settings.max_attempts_a_day,
        settings.transcoding_time_out_s,
        ecs.DEADLINE_S,
        oss=settings.oss_transcode_url is not None,
        ecs=bool(settings.ecs_hosts),
    )


def _read(connection: Connection, host: Teacher, ids: Sequence[int]) -> Read:
    """What the messages say; read before the transaction, in which every other writer has to wait."""
    found: Read = {}
    for one in inbox.read(connection, host.journal, ids):
        try:
            found[one.id] = one, parse(one.body, (Booking, Cancel))
        except Exception as error:  # noqa: BLE001 (raised, or buried, when it is this message's turn)
            found[one.id] = one, error
    return found


def _handle(
    connection: Connection, host: Teacher, ids: Sequence[int], read: Read, alive: list[str], dry_run: bool
) -> Batch:
    """Read the facts, decide, act: one transaction, so that no class joins a list that was just drained."""
    now = time.time()
    batch = Batch()
    new = inbox.unhandled(connection, host.journal, ids)
    kept = [id_ for id_ in ids if id_ in new]
    booked, cancelled, malformed = _sorted([read[id_] for id_ in kept])
    booked = cancels.without_cancelled(connection, host, booked, batch, now, dry_run=dry_run)
    known = bookings.known(connection, [one.class_id for one in booked])
    states = renditions.states(connection, {one.key for one in booked if one.key})
    taken = bookings.taken(connection, decide.contenders(booked, known, states, now), now)
    plan = decide.plan(booked, known, states, limits(host.settings), now, taken)
    if dry_run:
        for line in plan.lines():
            batch.row(line.partition(":")[0], line.partition(": ")[2])
        return batch
    _act(connection, host, plan, batch, alive, now)
    for one, fault in malformed:
        bury(connection, host, one, fault, batch, now)
    for message in cancelled:
        cancels.cancel(connection, host, message, batch, now)
    gone = {one.id for one, _ in malformed}
    inbox.done(connection, host.journal, [id_ for id_ in kept if id_ not in gone])
    return batch


def _sorted(
    messages: Sequence[tuple[Kept, Message | Exception]],
) -> tuple[list[Booking], list[Cancel], list[tuple[Kept, Malformed]]]:
    """The bookings, cancels and malformed messages; raises what nobody foresaw of a message."""
    booked: list[Booking] = []
    cancelled: list[Cancel] = []
    malformed: list[tuple[Kept, Malformed]] = []
    for one, message in messages:
        if isinstance(message, Booking):
            booked.append(message)
        elif isinstance(message, Cancel):
            cancelled.append(message)
        elif isinstance(message, Malformed):
            malformed.append((one, message))
        elif isinstance(message, Exception):
            raise message
    return booked, cancelled, malformed


def _act(connection: Connection, host: Teacher, plan: Plan, batch: Batch, alive: list[str], now: float) -> None:
    new = [(verdict.booking, BookingState.RECEIVED) for verdict in plan.verdicts]
    refused_ids = {v.booking.class_id for v in plan.verdicts if v.state is BookingState.REFUSED}
    orders = bookings.add(connection, new, now, refused=refused_ids)
    proceeding: list[tuple[Order, str]] = []
    waiting: list[Order] = []
    refused: list[Refusal] = []
    for verdict in plan.verdicts:
        order = orders[verdict.booking.class_id]
        match verdict.state:
            case BookingState.PLACED:
                proceeding.append((order, verdict.url or ""))
            case BookingState.WAITING:
                waiting.append(order)
            case _:
                assert verdict.code is not None  # a refusal has its code
                refused.append(Refusal(order, verdict.code, verdict.message, verdict.alarm))
    _wait(connection, host, waiting, batch, now)
    refuse_all(connection, host, refused, batch, now)
    proceed(connection, host, proceeding, batch, alive, now)
    renditions.begin(connection, plan.attempts, now)
    batch.attempts.extend(plan.attempts)
    started = [
        Event("transcoding begins", stem=a.stem, detail=f"{a.backend}, attempt {a.attempt}") for a in plan.attempts
    ]
    events.note(connection, host.journal, host.settings.name, started, now)
    for again in plan.again:
        _answer_again(connection, host, again.class_id, again.differs, batch, now)


def _wait(connection: Connection, host: Teacher, waiting: Sequence[Order], batch: Batch, now: float) -> None:
    bookings.close_all(connection, [Outcome(order, BookingState.WAITING) for order in waiting], now)
    for order in waiting:
        batch.joins[waiting_key(host, order)].append(order.class_id)
        batch.row(order.class_id, "wait", detail=order.stem)
    noted = [Event("waits", order.class_id, order.stem) for order in waiting]
    events.note(connection, host.journal, host.settings.name, noted, now)


ANSWERED = frozenset({BookingState.READY, BookingState.AIRED, BookingState.BROKEN})
"""States before which the platform was answered with success."""


def _answer_again(
    connection: Connection, host: Teacher, class_id: str, differs: bool, batch: Batch, now: float
) -> None:
    order = bookings.by_id(connection, [class_id])[class_id]
    what = "delivered again, differently: the first one stands" if differs else "delivered again"
    if order.state is BookingState.REFUSED:
        give_answer(connection, host, order, order.code or 0, order.message or "", now, times=1)
    elif order.state is BookingState.CANCELLED:
        give_answer(connection, host, order, errors.CANCELLED.number, errors.CANCELLED.meaning, now, times=1)
    elif order.state in ANSWERED or order.promised_at is not None:
        give_answer(connection, host, order, 0, "prepared", now, times=1)
    bookings.delivered_again(connection, [class_id])
    if differs:
        cry = outgoing.alarm(errors.CONFLICT, f"{class_id}: {what}", now, host.settings.name, class_id=class_id)
        outbox.put(connection, host.journal, [host.alarm(cry)], now)
    events.note(connection, host.journal, host.settings.name, [Event(what, class_id, order.stem)], now)
    batch.row(class_id, what, code=order.code or 0)


async def _keep_waiting_lists(host: Teacher, batch: Batch) -> None:
    try:
        await host.bus.join_waiting(batch.joins)
        for key, class_id in batch.leaves:
            await host.bus.leave_waiting(key, class_id)
    except (RedisError, OSError) as error:
        log.warning("redis: the waiting lists are behind the database: %s", error)


async def _start_transcoding(host: Teacher, attempts: Sequence[Attempt]) -> None:
    await begin.start_requests(host, [(a.record_id, a.resolution) for a in attempts if a.backend is Backend.OSS])
    await begin.start_ecs(host, [(a.record_id, a.resolution) for a in attempts if a.backend is Backend.ECS])
