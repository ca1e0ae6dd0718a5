"""Decides bookings: each waits, proceeds or is refused; cancels take bookings back."""

from collections.abc import Sequence
from functools import partial

from prefect import flow
from prefect.client.schemas.objects import State
from sqlalchemy import Connection

from flows.handling import Batch, batch_flow, read
from flows.host import NOWHERE, Teacher, log, teacher
from flows.teacher import attempts
from flows.teacher.roll import living
from flows.tell import tell
from lectern.changes import Changes
from lectern.decide import booking as decide
from lectern.decide import orders
from lectern.decide.attempts import Limits
from lectern.effects.rows import bookings, cancels, renditions, revisions
from lectern.errors import TryAgain
from lectern.messages import Booking, Cancel
from lectern.states import Backend
from lectern.wire import BACKUP

Asked = Booking | Cancel
"""The messages that this flow handles."""


@flow(name="booking", persist_result=False, result_storage=NOWHERE)
async def booking(inbox_ids: str, dry_run: bool = False) -> State[None]:
    """Decide the bookings and cancels of *inbox_ids*; those handled already are passed over."""
    batch: Batch[Asked] = await read(teacher(), inbox_ids, (Booking, Cancel), dry_run=dry_run)
    alive = await living(batch.host)
    return await batch_flow("booking", batch, partial(decided, alive), after, "What became of each booking")


def decided(alive: Sequence[str], connection: Connection, changes: Changes, messages: Sequence[Asked]) -> None:
    """Decide bookings and cancels; the streamers *alive* can take classes."""
    booked = [one for one in messages if isinstance(one, Booking)]
    cancelled = [one for one in messages if isinstance(one, Cancel)]
    if cancelled:
        changes.learn(bookings.by_id(connection, [f"{one.class_id}{BACKUP}" for one in cancelled]))
        changes.learn(revisions.of(connection, list(changes.orders)))
    unlisted = {one.key for one in booked if one.key and decide.named_by(one) is decide.Named.NOT_IN_LIST}
    states = renditions.states(connection, unlisted) if unlisted else {}
    may_go = decide.contenders(booked, changes.orders, states, changes.now)
    facts = orders.Facts(
        early=cancels.cancelled_before(connection, [one.class_id for one in booked], changes.now),
        renditions=states,
        taken=bookings.taken(connection, may_go, changes.now),
        loads=bookings.loads(connection, alive, changes.now) if may_go else dict.fromkeys(alive, 0),
    )
    orders.decide(changes, booked, cancelled, facts, Limits.of(changes.settings))


async def after(host: Teacher, some: Sequence[Changes]) -> None:
    """What follows the commit: answers and messages, the waiting lists in Redis, the transcodings."""
    await tell(host)
    try:
        for one in some:
            if one.joins:
                await host.bus.join_waiting(one.joins)
            for key, class_id in one.leaves:
                await host.bus.leave_waiting(key, class_id)
    except TryAgain as error:
        log.warning("redis: the waiting lists are behind the database: %s", error)
    for backend, start in ((Backend.OSS, attempts.start_requests), (Backend.ECS, attempts.start_ecs)):
        if keys := [(a.record_id, a.resolution) for one in some for a in one.begun if a.backend is backend]:
            await start(host, keys)
