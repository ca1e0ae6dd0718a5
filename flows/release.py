"""What the teacher takes back: cancelled and moved classes are released; after them a lease may be granted."""

import time
from collections.abc import Sequence

from sqlalchemy import Connection

from flows import stop
from flows.admission import Batch, Streamer
from flows.host import log
from lectern.effects import airings, events, inbox, leases
from lectern.effects.events import Event
from lectern.errors import Malformed
from lectern.messages import Grant, Release, parse
from lectern.states import AiringState

OVER = frozenset({AiringState.AIRED, AiringState.REFUSED, AiringState.CANCELLED})


def release(connection: Connection, host: Streamer, message: Release, batch: Batch, now: float) -> None:
    """Release a cancelled or moved class; one that it overtook is noted, so that it is not taken when it comes."""
    known = airings.by_id(connection, [message.class_id]).get(message.class_id)
    if known is None:
        airings.note_released(connection, message.class_id, message.placement, now)
        batch.row(message.class_id, "release of a class that has not come")
        return
    if message.placement is not None and message.placement < known.placement:
        batch.row(message.class_id, "release of an earlier placement")
        return
    if known.state not in OVER:
        airings.move(connection, known, AiringState.CANCELLED, now)
        events.note(connection, host.journal, host.settings.name, [Event("released", known.class_id, known.stem)], now)
        batch.stops.append(known)
    batch.row(message.class_id, "release")


def grant(connection: Connection, host: Streamer, message: Grant, now: float) -> None:
    """Hold the lease that was asked for: all that was taken away before is released by now."""
    leases.hold(connection, message.streamer, message.session, now)
    events.note(connection, host.journal, host.settings.name, [Event("lease granted")], now)


async def without_run(host: Streamer, inbox_ids: Sequence[int]) -> list[int]:
    """Prefect is away: releases and grants are handled all the same. Returns the messages that are left."""
    batch = Batch()
    left = await host.commit(_handle, host, inbox_ids, batch)
    if batch.stops:
        log.warning("%d classes are released without a run: Prefect is away", len(batch.stops))
    await stop.all_of(host, batch.stops)
    return left


def _handle(connection: Connection, host: Streamer, inbox_ids: Sequence[int], batch: Batch) -> list[int]:
    now = time.time()
    left: list[int] = []
    for kept in inbox.read(connection, host.journal, inbox_ids):
        try:
            message = parse(kept.body, (Release, Grant))
        except Malformed:
            left.append(kept.id)  # a Prepare, which waits for its run, or nothing that can be read
            continue
        if isinstance(message, Grant):
            grant(connection, host, message, now)
        elif isinstance(message, Release):
            release(connection, host, message, batch, now)
        inbox.done(connection, host.journal, [kept.id])
    return left
