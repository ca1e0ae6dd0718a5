"""Begins the sweeps of a host: those that would find nothing would only fill the UI."""

import asyncio
import time
from typing import Any

from sqlalchemy import Connection

from flows import once
from flows.host import Host, log
from flows.resident.runs import ResidentRuns
from flows.streamer import sweep as of_streamer
from flows.teacher import sweep as of_teacher
from flows.tell import tell
from lectern.effects.rows import outbox, renditions
from lectern.errors import TryAgain
from lectern.settings import TeacherSettings


async def sweeps(host: Host[Any], runs: ResidentRuns) -> None:
    """Begin a sweep as often as is set, and at each deadline, where there is anything to do."""
    while True:
        host.rounds.come("sweeps")
        await asyncio.sleep(await _until(host))
        if not await due(host):
            continue
        try:
            await runs.start("sweep", {}, name=f"sweep {host.settings.name}")
        except TryAgain as error:
            log.warning("sweep: without a run: %s", error.message)
            await tell(host)
            await asyncio.sleep(host.settings.sweep_interval_s)


async def _until(host: Host[Any]) -> float:
    if not isinstance(host.settings, TeacherSettings):
        return float(host.settings.sweep_interval_s)
    deadline = await host.commit(renditions.next_deadline)
    left = host.settings.sweep_interval_s if deadline is None else deadline - time.time() + 0.05
    return float(min(max(left, 1.0), host.settings.sweep_interval_s))


async def due(host: Host[Any]) -> bool:
    """Whether there is anything to sweep, and nobody does."""
    return once.SWEEP not in host.busy and await host.commit(_due, host)


def _due(connection: Connection, host: Host[Any]) -> bool:
    unsent = outbox.oldest_unsent(connection, host.journal, now := time.time())
    if unsent is not None and unsent < now - once.GRACE_S:
        return True
    if isinstance(host.settings, TeacherSettings):
        return of_teacher.due(connection, host)
    return of_streamer.due(connection, host)
