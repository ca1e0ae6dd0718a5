"""Deadlines, unsent answers, lost owners: what nobody else does any more."""

import time

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from sqlalchemy import Connection

from flows import show
from flows.batch import Batch
from flows.host import NOWHERE, log, teacher
from flows.once import GRACE_S, alone, prune
from flows.teacher import attempts, deadlines
from flows.teacher import cancels as cancelling
from flows.teacher.verdicts import Teacher, refuse, to_streamer
from flows.tell import tell
from lectern import errors, outgoing
from lectern.effects.rows import bookings, cancels, events, oss_requests, outbox, renditions
from lectern.errors import TryAgain
from lectern.facts import Event, Order
from lectern.states import BookingState

TOLD_AGAIN = "told its streamer again"
"""Noted once a class: a long download would fill its story with it."""

UNREPORTED_S = 60.0
UNENDED_S = 300.0
"""A class that ended so long ago, and of which no streamer said how, was not aired to its end."""


@flow(name="sweep teacher", persist_result=False, result_storage=NOWHERE)
async def sweep_teacher(dry_run: bool = False) -> State[None]:
    """Enforce deadlines, send again, pick up what lost its owner."""
    return await alone(teacher(), _sweep_teacher, dry_run)


async def _sweep_teacher(host: Teacher, dry_run: bool) -> State[None]:
    now = time.time()
    late, silent = await host.commit(_late, host, now)
    forgotten = await host.commit(oss_requests.forgotten, now - GRACE_S, now)
    if dry_run:
        return Completed(message=f"dry run: {len(late)} late, {len(silent)} unreported, {len(forgotten)} not asked for")
    try:
        batch = await deadlines.time_out(host)
    except TryAgain as error:
        log.warning("sweep: deadlines wait: %s", error.message)
        batch = Batch()
    await attempts.start_requests(host, [one.key for one in forgotten])
    lost = await host.commit(renditions.ownerless, now - GRACE_S, now)
    await attempts.start_ecs(host, [one.key for one in lost])
    await host.commit(_warn, host, late)
    await host.commit(_tell_again, host, silent)
    await host.commit(_cancel_again, host)
    await host.commit(_close, host, batch)
    await host.commit(prune, host)
    sent = await tell(host)
    await show.table("sweep-batch", batch.table, "What passed its deadline")
    done = f"{len(batch.table)} outcomes, {len(lost)} lost owners, {len(late)} late, {len(silent)} told again"
    return Completed(message=done if sent else f"{done}; Redis is away")


def _late(connection: Connection, host: Teacher, now: float) -> tuple[list[Order], list[Order]]:
    late = bookings.overdue_waiters(connection, now - host.settings.order_warn_time_out_s)
    return late, bookings.unreported(connection, now - UNREPORTED_S, now)


def _warn(connection: Connection, host: Teacher, late: list[Order]) -> None:
    now = time.time()
    for order in late:
        span = outgoing.span(host.settings.order_warn_time_out_s)
        said = f"{order.class_id} has waited for {order.stem} for more than {span}"
        cry = outgoing.alarm(
            errors.STALE_WAITING,
            said,
            now,
            host.settings.name,
            class_id=order.class_id,
            record_id=order.record_id,
            resolution=order.resolution,
        )
        outbox.put(connection, host.journal, [host.alarm(cry)], now)
    bookings.warned(connection, [order.class_id for order in late], now)


def _tell_again(connection: Connection, host: Teacher, silent: list[Order]) -> None:
    now = time.time()
    for order in silent:
        prepare = outgoing.prepare(order.payload, order.url or "", order.placement)
        outbox.put(connection, host.journal, [to_streamer(host, order.streamer or "", prepare, order.class_id)], now)
    known = events.known(connection, host.journal, TOLD_AGAIN, [order.class_id for order in silent])
    told = [Event(TOLD_AGAIN, order.class_id, order.stem) for order in silent if order.class_id not in known]
    events.note(connection, host.journal, host.settings.name, told, now)
    bookings.touch(connection, [order.class_id for order in silent], now)


def _cancel_again(connection: Connection, host: Teacher) -> None:
    now = time.time()
    cancelling.tell_again(connection, host, cancels.untold(connection, now), now)


def _unended(connection: Connection, now: float) -> list[Order]:
    over = bookings.unended(connection, now - GRACE_S)
    return [one for one in over if one.promised_at is None or one.end_time < now - UNENDED_S]


def _close(connection: Connection, host: Teacher, batch: Batch) -> None:
    """Classes whose time is over, and whose streamer never said a word, or not the last one."""
    now = time.time()
    for order in _unended(connection, now):
        if order.promised_at is None:
            why = f"{order.streamer} did not say in time that it is ready"
            refuse(connection, host, order, errors.ENDED, why, batch, now, alarm=True)
            continue
        code, why = errors.AIRING_BROKEN, f"{order.streamer} never said how it ended"
        bookings.close(connection, order, BookingState.BROKEN, now, code=code.number, message=why)
        said = f"{order.class_id}: {why}"
        cry = outgoing.alarm(code, said, now, host.settings.name, class_id=order.class_id, record_id=order.record_id)
        outbox.put(connection, host.journal, [host.alarm(cry)], now)
        broken = Event(BookingState.BROKEN, order.class_id, order.stem, why)
        events.note(connection, host.journal, host.settings.name, [broken], now)
        batch.row(order.class_id, BookingState.BROKEN, where=order.streamer or "", code=code.number, detail=why)


def due(connection: Connection, host: Teacher) -> bool:
    """Whether a sweep of this teacher would find anything to do."""
    now = time.time()
    return bool(
        renditions.overdue(connection, now)
        or oss_requests.forgotten(connection, now - GRACE_S, now)
        or renditions.ownerless(connection, now - GRACE_S, now)
        or bookings.overdue_waiters(connection, now - host.settings.order_warn_time_out_s)
        or bookings.unreported(connection, now - UNREPORTED_S, now)
        or _unended(connection, now)
        or cancels.untold(connection, now)
    )
