"""The timetable: classes get their runs, are aired although Prefect is away, and not although it can not be asked."""

import asyncio
import time
from collections.abc import Callable, Sequence

from flows.host import Host, log
from flows.streamer import broadcast
from flows.streamer.timetable import Cancels, Plan, keep_up
from lectern.decide.broadcast import without_run
from lectern.effects.rows import airings
from lectern.effects.rows.airings import Airing
from lectern.errors import TryAgain
from lectern.settings import StreamerSettings

Streamer = Host[StreamerSettings]
EVERY_S = 1.0
TIMETABLE_EVERY_S = 3.0


async def guard(host: Streamer) -> None:
    """Air what should be on air and has no run: Prefect may be away, a class may not."""
    idle: dict[str, float] = {}  # since when a class is due and nobody is at it, epoch seconds
    while True:
        host.rounds.come("guard")
        now = time.time()
        due = await host.look(airings.due, now + host.settings.broadcast_lead_s, now)
        waits = [one for one in due if one.class_id not in host.busy and one.class_id not in host.guarded]
        idle = {one.class_id: idle.get(one.class_id, now) for one in waits}
        _air_all(host, [one for one in waits if without_run(one.start_time, idle[one.class_id], now)])
        await asyncio.sleep(EVERY_S)


def _air_all(host: Streamer, found: Sequence[Airing]) -> None:
    for one in found:
        log.warning("%s: should be on air and has no run; it is aired without one", one.class_id)
        task = asyncio.create_task(broadcast.air(host, one))
        host.guarded[one.class_id] = task
        task.add_done_callback(_say_how(host.guarded, one.class_id))


async def timetable(host: Streamer) -> None:
    """A class whose run was cancelled in the UI gives its citation back, and the guard leaves it."""
    cancels = Cancels(host)
    while True:
        host.rounds.come("timetable")
        try:
            await cancels.look()
        except TryAgain as error:
            log.warning("prefect: can not ask for cancelled broadcasts: %s", error.message)
        await asyncio.sleep(TIMETABLE_EVERY_S)


async def plan(host: Streamer) -> None:
    """Give ready classes their runs, the next one first."""
    await keep_up(Plan(host), host, TIMETABLE_EVERY_S)


def _say_how(guarded: dict[str, asyncio.Task[str]], class_id: str) -> Callable[[asyncio.Task[str]], None]:
    def done(task: asyncio.Task[str]) -> None:
        del guarded[class_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: %s", class_id, error)

    return done
