"""Prefect's side of a host: its deployments, the orphans of a crash, the worker; all again where Prefect was away."""

import asyncio
import time

import httpx
from prefect.exceptions import PrefectException

from flows import deployments, heartbeats
from flows.host import log
from flows.intake import backoff_s
from flows.runs import ResidentRuns
from flows.worker import ResidentWorker
from lectern.errors import TryAgain
from lectern.settings import Settings

STEADY_S = 60.0


async def serve(settings: Settings, runs: ResidentRuns) -> None:
    """Execute the runs of this host's queue until cancelled.

    Prefect's own worker ends after about a minute without its server; a class on air must not end with it.
    """
    tries = 0
    while True:
        began = time.monotonic()
        try:
            runs.know(await deployments.read(runs.client, settings))
            await runs.adopt_orphans(settings.work_pool, settings.name)
            await _work(settings, runs)
        except* (TryAgain, httpx.HTTPError, PrefectException, RuntimeError) as group:
            tries = 0 if time.monotonic() - began > STEADY_S else tries
            log.warning("prefect: away: %r", _first(group))
        tries += 1
        await asyncio.sleep(backoff_s(tries))


async def _work(settings: Settings, runs: ResidentRuns) -> None:
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
        group.create_task(heartbeats.beat(runs.client, runs.alive, settings.run_heartbeat_s))
        group.create_task(worker.start(printer=lambda said="": log.info("%s", said)))


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
