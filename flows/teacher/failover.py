"""Moves the classes of a lost streamer to others, and raises alarms for those that nobody can take."""

import asyncio
import math
import time
from collections.abc import Sequence

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from sqlalchemy import Connection

from flows import artifacts
from flows.handling import Decide, changed, printed
from flows.host import NOT_MOVED, NOWHERE, TeacherHost, lost_tag, teacher
from flows.outbox_publisher import publish_outbox
from flows.teacher.membership import alive_streamers, failover_candidates, move_key
from lectern.db import bookings, leases
from lectern.decide import leases as decide_leases
from lectern.decide.placement import Choice, reassign, secondary_id
from lectern.errors import TryAgain
from lectern.i18n import Text
from lectern.model.plan import Changes
from lectern.model.tables.teacher import StreamerRow, streamers
from lectern.run_records import summary

LOOK_S = 1.0


@flow(name="move", persist_result=False, result_storage=NOWHERE)
async def move(streamer: str, force: bool = False, dry_run: bool = False) -> State[None]:
    """Move the classes of *streamer* to others. *force*: a person has made sure that it pushes nothing any more."""
    host = teacher()
    key = move_key(streamer)
    if key in host.in_progress:
        return Completed(name=NOT_MOVED, message="another run is at it")
    host.in_progress.add(key)
    try:
        return await _move(host, streamer, force=force, dry_run=dry_run)
    except TryAgain as error:
        return Failed(name=NOT_MOVED, message=f"nothing was moved: {error.message}")
    finally:
        host.in_progress.discard(key)


async def _move(host: TeacherHost, streamer: str, *, force: bool, dry_run: bool) -> State[None]:
    """Show this run in Prefect before moving anything: a streamer that cannot reach Redis looks for it there."""
    before = await host.read_tx(leases.holder, streamer)
    silent_s = -1.0 if force else decide_leases.lost_after(host.settings.streamer_lost_after_s, before.lease_s)
    if silent_s == math.inf:
        return Failed(name=NOT_MOVED, message=f"the lease of {streamer} has no end; see that it is off, and set force")
    if dry_run:
        alive = [name for name in await alive_streamers(host) if name != streamer]
        plan = await changed(host, taken(streamer, before, alive, force=force), dry_run=True)
        shown = await printed("move", [plan])
        return Completed(name=NOT_MOVED, message=shown.message)
    if not await _takers(host, streamer, silent_s, force=force):
        return _stays(streamer, force=force)
    if before.session is not None:
        await host.runs.announce(lost_tag(streamer, before.session))
    if not await _stays_silent(host, streamer, silent_s) and not force:
        return Completed(name=NOT_MOVED, message=f"{streamer} was heard of again: it keeps its classes")
    alive = await _takers(host, streamer, silent_s, force=force)
    if not alive:
        return _stays(streamer, force=force)
    if not await host.bus.take(host.settings.streamers_key, streamer, silent_s):
        return Completed(name=NOT_MOVED, message=f"{streamer} was heard of again: it keeps its classes")
    plan = await changed(host, taken(streamer, before, alive, force=force))
    if force:  # it is taken out: nobody misses it any more
        await host.bus.part(host.settings.streamers_key, streamer)
    await publish_outbox(host)
    await artifacts.table("move-batch", plan.table, f"What became of the classes of {streamer}")
    return Completed(message=summary(plan.table))


async def _takers(host: TeacherHost, streamer: str, silent_s: float, *, force: bool) -> list[str]:
    """The streamers that may take the classes; raises TryAgain if that cannot be known."""
    alive = [name for name in await alive_streamers(host) if name != streamer]
    return alive if force else failover_candidates(host, streamer, silent_s)


def _stays(streamer: str, *, force: bool) -> State[None]:
    which = "other streamer is alive" if force else "streamer is alive that it asks before it goes on alone"
    return Completed(name=NOT_MOVED, message=f"no {which}: {streamer} keeps its classes")


async def _stays_silent(host: TeacherHost, streamer: str, silent_s: float) -> bool:
    """Wait for NOTICE_S, and until the silence has lasted *silent_s*; False if *streamer* is heard of again."""
    last_word, _ = await _silence(host, streamer)
    await asyncio.sleep(decide_leases.NOTICE_S)
    while True:
        word, lasted_s = await _silence(host, streamer)
        if word != last_word:
            return False
        if lasted_s > silent_s:
            return True
        await asyncio.sleep(min(LOOK_S, silent_s - lasted_s + 0.01))


async def _silence(host: TeacherHost, streamer: str) -> tuple[float | None, float]:
    """The time of the last heartbeat of *streamer* in Redis, at the shared clock, and the seconds since.

    If Redis has forgotten the streamer, the seconds count from when this teacher first missed it.
    """
    now, beats, _ = await host.bus.heard(host.settings.streamers_key)
    host.beats |= beats
    if streamer in beats:
        at = float(beats[streamer]["at"])
        return at, now - at
    heard = time.monotonic()
    return None, heard - host.missing_since.setdefault(streamer, heard)


def taken(streamer: str, before: StreamerRow, alive: Sequence[str], *, force: bool) -> Decide[Changes]:
    """Take the classes of *streamer*, unless its lease was granted again since *before* was read."""

    def go(connection: Connection, changes: Changes) -> None:
        holder = leases.holder(connection, streamer)
        if holder.session != before.session:
            return
        changes.change(streamers, {"name": streamer}, {}, {"session": None})
        orders = bookings.on(connection, streamer, changes.now)
        if not force and holder.lost_at is None:  # `Membership` may not have raised this alarm yet
            decide_leases.lose(changes, holder, len(orders), alive, movable=True)
        changes.orders |= bookings.by_id(connection, [secondary_id(order.class_id) for order in orders])
        no = leases.refused_by(connection, [order.class_id for order in orders])
        choice = Choice(bookings.loads(connection, alive, changes.now), no)
        going = decide_leases.leaving_lost(changes, orders, choice, force=force)
        reassign(changes, going, choice, Text("{streamer} is lost", streamer=streamer), refused=False)
        stays = Text("with {streamer}, which is lost: no other streamer can take it yet", streamer=streamer)
        for order in orders if before.session is not None else ():
            if order not in going:
                changes.note("stays", order, stays)

    return go
