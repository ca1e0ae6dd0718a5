"""The classes of a lost streamer are moved to others; those that nobody can take are alarmed."""

import asyncio
import math
import time
from collections.abc import Sequence

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from redis.exceptions import RedisError
from sqlalchemy import Connection

from flows import artifacts
from flows.host import NOT_MOVED, lost_tag, run_name, teacher, tell
from flows.outcome import Batch, Teacher, living, place_again, summary
from flows.streamers import move_key
from lectern.decide import lease as decide
from lectern.effects import bookings, leases
from lectern.errors import TryAgain


@flow(name="move", flow_run_name=run_name, persist_result=False)
async def move(streamer: str, force: bool = False, dry_run: bool = False) -> State[None]:
    """Move the classes of *streamer* to others. *force*: a person has made sure that it pushes nothing any more."""
    host = teacher()
    key = move_key(streamer)
    if key in host.busy:
        return Completed(name=NOT_MOVED, message="another run is at it")
    host.busy.add(key)
    try:
        return await _move(host, streamer, force=force, dry_run=dry_run)
    except (RedisError, OSError) as error:
        return Failed(name=NOT_MOVED, message=f"Redis does not answer, nothing was moved: {error}")
    except TryAgain as error:
        return Failed(name=NOT_MOVED, message=f"nothing was moved: {error.message}")
    finally:
        host.busy.discard(key)


async def _move(host: Teacher, streamer: str, *, force: bool, dry_run: bool) -> State[None]:
    """First this run is seen in Prefect for a while, where a streamer looks that can not reach Redis."""
    before = await host.commit(leases.holder, streamer)
    silent_s = -1.0 if force else decide.lost_after(host.settings.streamer_lost_after_s, before.lease_s)
    if silent_s == math.inf:
        return Failed(name=NOT_MOVED, message=f"the lease of {streamer} has no end; see that it is off, and set force")
    if dry_run:
        classes = await host.commit(bookings.on, streamer, time.time())
        return Completed(name=NOT_MOVED, message=f"dry run: would move {len(classes)} classes of {streamer}")
    if before.session is not None:
        await host.runs.announce(lost_tag(streamer, before.session))
    await asyncio.sleep(decide.NOTICE_S)
    alive = [one for one in await living(host) if one != streamer]
    if not alive:
        return Completed(name=NOT_MOVED, message=f"no other streamer is alive: {streamer} keeps its classes")
    if not await host.bus.take(host.settings.streamers_key, streamer, silent_s):
        return Completed(name=NOT_MOVED, message=f"{streamer} was heard of again: it keeps its classes")
    batch = await host.commit(_take_all, host, streamer, before.session, alive)
    await tell(host)
    await artifacts.table("move-batch", batch.table, f"What became of the classes of {streamer}")
    return Completed(message=summary(batch.table))


def _take_all(connection: Connection, host: Teacher, streamer: str, session: str | None, alive: Sequence[str]) -> Batch:
    now = time.time()
    batch = Batch()
    if leases.take(connection, streamer, session):
        orders = bookings.on(connection, streamer, now)
        place_again(connection, host, orders, alive, batch, now, f"{streamer} is lost", refused=False)
    return batch
