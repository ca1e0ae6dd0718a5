"""The run that watches a class: it hands it over, shows how it goes, and takes it off the air when it is cancelled."""

import asyncio
import time

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from flows import artifacts
from flows.host import NOWHERE, StreamerHost, log, streamer
from flows.playout_link import Watch
from flows.streamer import playout_events
from lectern.db import airings
from lectern.model.facts import Airing
from lectern.states import AiringState
from lectern.timing import comes

LOOK_EVERY_S = 5.0
"""Seconds after which the class is read from the database although no event came."""

OPEN = frozenset({AiringState.READY, AiringState.ON_AIR})


@flow(name="broadcast", persist_result=False, result_storage=NOWHERE)
async def broadcast(class_id: str, dry_run: bool = False) -> State[None]:
    """Watch one class to its end: the playout airs it, whether or not this run is there."""
    host = streamer()
    airing = (await host.read_tx(airings.by_id, [class_id])).get(class_id)
    if airing is None or airing.state not in OPEN or class_id in host.playout.watches:
        return Completed(message=f"nothing to do: {class_id} is {airing.state if airing else 'not known'}")
    if dry_run:
        return Completed(message=f"dry run: would watch {airing.stem} at {time.ctime(airing.start_time)}")
    over = await watch(host, airing)
    if over.state is AiringState.CANCELLED:
        return Cancelled(message=f"{class_id}: was taken back")
    if over.state is AiringState.BROKEN:
        return Failed(message=f"{class_id}: {over.message}")
    return Completed(message=f"{over.state}: {over.message}" if over.message else str(over.state))


async def watch(host: StreamerHost, airing: Airing) -> Airing:
    """Watch a class until it is over; returns it as it is then. A cancel of the run takes the class off the air."""
    watching = Watch(str(runtime.flow_run.id or ""))
    host.playout.watches[airing.class_id] = watching
    host.playout.wanted.set()
    try:
        if warning := await host.read_tx(airings.recording_warning, airing):
            log.warning("%s: its recording %s is faulty: %s", airing.class_id, airing.stem, warning)
        async with artifacts.ProgressBar(f"broadcast-{airing.class_id}", f"{airing.class_id} on air") as bar:
            over = await _watched(host, airing, watching, bar)
            bar.end(f"{airing.class_id}: {over.state}")
            return over
    except asyncio.CancelledError:
        # A class that the teacher took back is closed already; a process that ends leaves it to the playout.
        if watching.run_id and host.runs.was_cancelled(watching.run_id):
            await asyncio.shield(_cancelled(host, airing))
        raise
    finally:
        host.playout.watches.pop(airing.class_id, None)


async def _watched(host: StreamerHost, airing: Airing, watching: Watch, bar: artifacts.ProgressBar) -> Airing:
    while True:
        await comes(watching.news, LOOK_EVERY_S)  # if no event comes, a look at the row costs little
        watching.news.clear()
        while watching.lines:
            log.info("%s: %s", airing.class_id, watching.lines.popleft())
        now = (await host.read_tx(airings.by_id, [airing.class_id])).get(airing.class_id)
        if now is None or now.state not in OPEN | {AiringState.WAITING}:
            return now or airing
        bar.set(100 * (time.time() - now.start_time) / max(now.end_time - now.start_time, 1.0))


async def _cancelled(host: StreamerHost, airing: Airing) -> None:
    await playout_events.close_unfinished(host, airing.class_id, AiringState.CANCELLED, "cancelled in the UI")
    host.playout.wanted.set()
