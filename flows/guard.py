"""Classes are aired although Prefect is away, and not aired although it can not be asked: the timetable's guard."""

import asyncio
import time
from collections.abc import Callable

import httpx
from prefect.exceptions import PrefectException

from flows import broadcast
from flows.host import Host, log
from lectern.effects import airings
from lectern.settings import StreamerSettings

Streamer = Host[StreamerSettings]
EVERY_S = 1.0
TIMETABLE_EVERY_S = 3.0
GRACE_S = 5.0
"""A class that should be on air for so long and has no run is aired without one."""


async def guard(host: Streamer) -> None:
    """Air what should be on air and has no run: Prefect may be away, a class may not."""
    while True:
        await asyncio.sleep(EVERY_S)
        now = time.time()
        for one in await host.look(airings.should_be_on_air, now - GRACE_S, now):
            if one.class_id not in host.busy and one.class_id not in host.guarded:
                log.warning("%s: should be on air and has no run; it is aired without one", one.class_id)
                task = asyncio.create_task(broadcast.air(host, one))
                host.guarded[one.class_id] = task
                task.add_done_callback(_say_how(host.guarded, one.class_id))


async def timetable(host: Streamer) -> None:
    """A class that was cancelled in the UI before its time gives its citation back, and the guard leaves it."""
    while True:
        await asyncio.sleep(TIMETABLE_EVERY_S)
        try:
            await broadcast.honour_cancels(host)
        except (httpx.HTTPError, PrefectException) as error:
            log.warning("prefect: can not ask for cancelled broadcasts: %r", error)


def _say_how(guarded: dict[str, asyncio.Task[str]], class_id: str) -> Callable[[asyncio.Task[str]], None]:
    def done(task: asyncio.Task[str]) -> None:
        del guarded[class_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: %s", class_id, error)

    return done
