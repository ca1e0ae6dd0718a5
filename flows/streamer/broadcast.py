"""The runs that watch classes: made for their times, they show how it goes, and a cancelled one ends its class."""

import asyncio
import time

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from flows import artifacts
from flows.host import NOWHERE, StreamerHost, current, log
from flows.playout_link import Watch
from flows.prefect_api import Begun, NewRun, cancelled_runs
from flows.streamer import lease, playout_events
from flows.streamer.amend import OTHER_TIME
from lectern import errors, rendition_ids
from lectern.db import airings, inbox
from lectern.decide.airing import RUN_AHEAD_S
from lectern.errors import Caught, TryAgain
from lectern.model.facts import Airing
from lectern.states import AiringState
from lectern.timing import comes

LOOK_EVERY_S = 5.0  # seconds between two looks of a run at its class
OPEN = frozenset({AiringState.READY, AiringState.ON_AIR})


@flow(name="broadcast", persist_result=False, result_storage=NOWHERE)
async def broadcast(class_id: str, dry_run: bool = False) -> State[None]:
    """Watch one class to its end: the playout airs it, whether or not this run is there."""
    host: StreamerHost = current.get()
    airing = (await host.read_tx(airings.by_id, [class_id])).get(class_id)
    if airing is None or class_id in host.playout.watches or not (airing.state in OPEN or _is_not_aired(airing)):
        return Completed(message=f"nothing to do: {class_id} is {airing.state if airing else 'not known'}")
    if dry_run:
        watches = f"watch {airing.stem} at {time.ctime(airing.start_time)}"
        return Completed(message=f"dry run: would {watches if airing.state in OPEN else 'say that it was not aired'}")
    over = await watch(host, airing) if airing.state in OPEN else airing
    if over.state is AiringState.CANCELLED:
        return Cancelled(message=f"{class_id}: was taken back")
    if _is_not_aired(over):
        return Failed(message=f"{class_id}: {over.message}")
    return Completed(message=f"{over.state}: {over.message}" if over.message else str(over.state))


def _is_not_aired(airing: Airing) -> bool:
    """Whether a class is known as broken, or its rendition came after its end."""
    return airing.state is AiringState.BROKEN or airing.code == errors.ENDED.number


async def watch(host: StreamerHost, airing: Airing) -> Airing:
    """Watch a class until it is over; returns it as it is then. A cancel of the run takes the class off the air."""
    watching = Watch(str(runtime.flow_run.id or ""))
    host.playout.watches[airing.class_id] = watching
    host.playout.wanted.set()
    try:
        if warning := await host.read_tx(airings.recording_warning, airing):
            log.warning("%s: its recording %s is faulty: %s", airing.class_id, airing.stem, warning)
        async with artifacts.ProgressBar(
            f"broadcast-{host.settings.name}-{airing.class_id}", f"{airing.class_id} on air"
        ) as bar:
            over = await _watched(host, airing, bar)
            bar.end(f"{airing.class_id}: {over.state}")
            return over
    except asyncio.CancelledError:
        # A class that the teacher took back is closed already; a process that ends leaves it to the playout.
        if watching.run_id and host.runs.was_cancelled(watching.run_id):
            await asyncio.shield(playout_events.close_cancelled(host, airing.class_id))
            host.playout.wanted.set()
        raise
    finally:
        host.playout.watches.pop(airing.class_id, None)


async def _watched(host: StreamerHost, airing: Airing, bar: artifacts.ProgressBar) -> Airing:
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        now = (await host.read_tx(airings.by_id, [airing.class_id])).get(airing.class_id)
        if now is None or now.state not in OPEN | {AiringState.WAITING}:
            return now or airing
        bar.set(100 * (time.time() - now.start_time) / max(now.end_time - now.start_time, 1.0))


EVERY_S = 3.0
AT_ONCE_S = 2.0
PLANNED = 20
"""Number of new runs after which the timetable is read again: with 100,000 classes that takes longer than a run."""

CALM_S = 5.0  # seconds after which a ready class that does not begin soon gets its run
AGAIN_S = 15.0
"""Seconds after which a class is retried whose run could not be made; until then the others have their turn."""

SHOWN_S = 3600.0  # seconds after its end for which a class may still get its run, which tells how it ended
PAGE = 200  # number of runs about which Prefect is asked at once, because it returns no more than that


class RunScheduler:
    """Gives classes that are ready, on air without one, or have ended without one, their runs, the next class first.

    A run for later costs more than all the rest of a booking. So it is not made while bookings wait for their answers,
    and however many there are, making them takes a third of the server's time.
    """

    def __init__(self, host: StreamerHost) -> None:
        self._host = host
        self._aside: dict[str, float] = {}  # until when classes are passed over, epoch seconds

    async def run(self) -> None:
        """Make runs until cancelled."""
        while True:
            self._host.watchdog.beat("plan")
            if not await self.step():
                await comes(self._host.unplanned, EVERY_S)

    async def step(self) -> bool:
        """Make the runs of the next classes; returns whether there may be more that can be made at once."""
        host, now = self._host, time.time()
        host.unplanned.clear()
        self._aside = {class_id: until for class_id, until in self._aside.items() if until > now}
        aside, soon = list(self._aside), now + host.settings.broadcast_lead_s + RUN_AHEAD_S
        classes = await host.read_tx(airings.unscheduled, now, PLANNED, aside)
        at_once = [airing for airing in classes if airing.start_time < soon]
        for airing in at_once:
            host.watchdog.beat("plan")  # a slow Prefect takes seconds for each run
            if not await self._made(airing):
                return False
        later, ended = list[Airing](), list[Airing]()
        if not at_once:
            ended = await host.read_tx(airings.unshown, now - SHOWN_S, now, PLANNED, aside)
            later = ended or await host.read_tx(airings.unscheduled, now - CALM_S, PLANNED, aside)
        for class_id in [airing.class_id for airing in later]:
            host.watchdog.beat("plan")
            if host.unplanned.is_set() or await host.read_tx(inbox.waits, "prepare"):
                return False
            began = time.monotonic()
            ready = (await host.read_tx(airings.by_id, [class_id])).get(class_id)  # it may have changed since, or gone
            if ready is not None and (ready.state in OPEN or ended) and ready.run_id is None:
                if not await self._made(ready):
                    return False
                await asyncio.sleep(2 * (time.monotonic() - began))
        return bool(at_once or later)

    async def _made(self, airing: Airing) -> bool:
        """Make the run of a class; False if Prefect seems to be away, so that the other classes can wait, too."""
        with Caught() as failed:
            run_id = str(await self._create(airing))
        if failed.error is None:
            await self._host.write_tx(airings.scheduled, airing.class_id, run_id)
            return True
        self._aside[airing.class_id] = time.time() + AGAIN_S
        if isinstance(failed.error, TryAgain):
            log.warning("%s: its broadcast cannot be scheduled, soon again: %s", airing.class_id, failed.error)
            return False
        log.error("%s: no run can be made for it; it is aired without one", airing.class_id, exc_info=failed.error)
        return True  # the others get their runs

    async def _create(self, airing: Airing) -> Begun:
        host = self._host
        at = airing.start_time - host.settings.broadcast_lead_s
        tags = [f"class:{airing.class_id}", f"record:{rendition_ids.folder(airing.stem)}"]
        name = f"broadcast {airing.class_id} {airing.stem}"
        key = f"broadcast:{host.settings.name}:{airing.class_id}:{airing.placement}:{airing.start_time:.0f}"
        # A class may be moved to another time and back, to the time whose run was cancelled then; and if its file was
        # lost when its run began, the run had nothing to do.
        run = NewRun("broadcast", {"class_id": airing.class_id}, name, tags, key, OTHER_TIME)
        is_late = at <= time.time() + AT_ONCE_S  # for the timetable: not even a poll is waited for
        return await host.background.start(host.runs, run, None if is_late else at, needs_run=True)


class CancelledRuns:
    """Ends the classes whose runs somebody cancelled in the UI while no process was at them; they are not aired.

    Each look asks about the runs of the next classes, and about one more page of those that come later.
    """

    def __init__(self, host: StreamerHost) -> None:
        self._host = host
        self._page = 0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._host.watchdog.beat("timetable")
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Look once, as far as Prefect can be asked."""
        planned = await self._host.read_tx(airings.planned)
        run_ids = list(planned)
        later = [run_ids[begin : begin + PAGE] for begin in range(PAGE, len(run_ids), PAGE)]
        self._page += 1
        for page in (run_ids[:PAGE], *(later[self._page % len(later) :][:1] if later else ())):
            for run_id, why in (await cancelled_runs(self._host.runs, page)).items():
                if run_id in planned:
                    await self._cancelled(run_id, planned[run_id], why)

    async def _cancelled(self, run_id: str, class_id: str, why: str) -> None:
        host = self._host
        try:
            airing = (await host.read_tx(airings.by_id, [class_id])).get(class_id)
            watch = host.playout.watches.get(class_id)
            if airing is None or airing.run_id != run_id or airing.state not in OPEN:
                return  # released, or moved
            if watch is not None and (airing.state is AiringState.ON_AIR or watch.run_id == run_id):
                return  # watched by a run that has a cancel of its own
            if why == OTHER_TIME:  # by us, and late: the class had been changed back, and had got this run again
                await host.write_tx(airings.scheduled, class_id, None)
                host.unplanned.set()
                return
            log.warning("%s: its run was cancelled in the UI, it will not be aired", class_id)
            await playout_events.close_cancelled(host, class_id)
            await lease.end_pushes(host, [airing])
        except errors.LecternError as error:
            log.error("%s: its run was cancelled in the UI, but the class cannot be ended: %s", class_id, error.message)
