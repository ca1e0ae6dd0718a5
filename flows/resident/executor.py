"""Prefect's side of a host: its deployments, the orphans of a crash, the worker; all again where Prefect was away."""

import asyncio
import time
from typing import Any

from flows import trouble
from flows.host import Host, log
from flows.resident import deployments, heartbeats, orphans
from flows.resident.prefect_client import AWAY
from flows.resident.runs import ResidentRuns
from flows.resident.worker import ResidentWorker
from flows.trouble import backoff_s
from lectern.errors import TryAgain
from lectern.settings import Settings

STEADY_S = 60.0
ALARM_AFTER_S = 60.0
"""Seconds for which Prefect may be away before that is alarmed: meanwhile no booking is answered."""

UNHEARD_EVERY_S = 5.0


async def serve(host: Host[Any], runs: ResidentRuns) -> None:
    """Execute the runs of this host's queue until cancelled; raises Misuse where a deployment is missing.

    Prefect's own worker ends after about a minute without its server; a class on air must not end with it.
    """
    settings: Settings = host.settings
    tries, well_at = 0, time.monotonic()
    while True:
        began = time.monotonic()
        host.rounds.note("runs")
        try:
            runs.know(await deployments.read(runs.client, settings))
            await orphans.adopt(runs, settings.work_pool, settings.name)
            well_at = time.monotonic()
            await _work(host, runs)
        except* (TryAgain, *AWAY) as group:
            now, why = time.monotonic(), repr(_first(group))
            if now - began > STEADY_S:
                tries, well_at = 0, now
            log.warning("prefect: away: %s", why)
            if now - well_at > ALARM_AFTER_S:
                await trouble.alarm(host, "prefect", f"away for more than {ALARM_AFTER_S:.0f} s: {why}")
        tries += 1
        await asyncio.sleep(backoff_s(tries))


async def _work(host: Host[Any], runs: ResidentRuns) -> None:
    settings: Settings = host.settings
    worker = ResidentWorker(
        runs,
        work_pool_name=settings.work_pool,
        work_queues=[settings.name],
        name=settings.name,
        prefetch_seconds=0,
        create_pool_if_not_found=False,
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(runs.watch())
        group.create_task(_look_after(host, runs))
        group.create_task(heartbeats.beat(runs.client, runs.alive, settings.run_heartbeat_s))
        group.create_task(worker.start(printer=lambda said="": log.info("%s", said)))


async def _look_after(host: Host[Any], runs: ResidentRuns) -> None:
    """Take what was created without our hearing of it; raises TryAgain where the deployments must be read anew."""
    while True:
        host.rounds.come("runs")
        try:
            async with asyncio.timeout(UNHEARD_EVERY_S):
                await runs.outdated.wait()
        except TimeoutError:
            await orphans.take_unheard(runs)
        else:
            raise TryAgain("the deployments were deleted or made anew; their ids are read anew")


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
