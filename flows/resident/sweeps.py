"""Begins a sweep of a host only if there is something to do: empty sweeps would only fill the UI."""

import asyncio
import time
from typing import Any

from sqlalchemy import Connection

from flows.handling import GRACE_S, SWEEP
from flows.host import SWEEPING, Host, is_ours
from flows.resident.handler import Handler
from flows.streamer import sweep as of_streamer
from flows.teacher import sweep as of_teacher
from lectern.effects.rows import outbox, transcodings
from lectern.settings import TeacherSettings

FIRST_S = GRACE_S + 1.0
"""Seconds from the start to the first sweep, which then finds what was decided up to the start."""


async def sweeps(host: Host[Any], handler: Handler) -> None:
    """Sweep every `sweep_interval_s` seconds and at each deadline, if anything is to be done.

    The first sweep comes soon: only a sweep begins the work that the previous process had decided and not begun.
    """
    pause_s = min(FIRST_S, host.settings.sweep_interval_s)
    while True:
        host.rounds.come("sweeps")
        await asyncio.sleep(pause_s)
        await sweep(host, handler)
        pause_s = await _until(host)


async def sweep(host: Host[Any], handler: Handler) -> bool:
    """Sweep now, if anything is to be done and no other teacher that shares the rows does it.

    False if a sweep is at work here, which may not find what has come up since it began.
    """
    if SWEEP in host.busy:
        return False
    if await due(host) and await is_ours(host, SWEEPING, 2 * host.settings.sweep_interval_s):
        await asyncio.create_task(handler.sweep(), name="sweep")
    return True


async def _until(host: Host[Any]) -> float:
    if not isinstance(host.settings, TeacherSettings):
        return float(host.settings.sweep_interval_s)
    deadline = await host.commit(transcodings.next_deadline)
    left = host.settings.sweep_interval_s if deadline is None else deadline - time.time() + 0.05
    return float(min(max(left, 1.0), host.settings.sweep_interval_s))


async def due(host: Host[Any]) -> bool:
    """Whether anything is to be swept and no sweep is at work."""
    return SWEEP not in host.busy and await host.commit(_due, host)


def _due(connection: Connection, host: Host[Any]) -> bool:
    unsent = outbox.oldest_unsent(connection, host.journal, now := time.time())
    if unsent is not None and unsent < now - GRACE_S:
        return True
    if isinstance(host.settings, TeacherSettings):
        return of_teacher.due(connection, host)
    return of_streamer.due(connection)
