"""Two timers of a host: it sweeps again and again, and deletes what is old so that no table grows for ever."""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

from flows.handling import GRACE_S, SWEEP
from flows.host import PRUNING, SWEEPING, Host, StreamerHost, is_ours, log
from flows.resident.consumer import Handler
from flows.streamer.maintenance import prune_quarantine
from lectern.db import retention, transcodings
from lectern.db.retention import RowsBefore
from lectern.settings import Settings, TeacherSettings

FIRST_S = GRACE_S + 1.0  # seconds from the start to the first sweep, which then finds what was decided up to the start
LOOK_S = 10.0  # most seconds until a pause goes by a setting that was changed
PAUSE_S = 0.05  # seconds between two slices: others write meanwhile
PRUNING_S = 300.0
"""Seconds for which one of several teachers has the duty; deleting a slice takes well below one second."""


async def sweeps(host: Host[Any], handler: Handler) -> None:
    """Sweep every `sweep_interval_s` seconds and at each deadline.

    The first sweep comes soon: only a sweep begins the work that the previous process had decided and not begun.
    """
    most_s = FIRST_S
    while True:
        await _pause(host, "sweeps", lambda its: its.sweep_interval_s, most_s)
        host.watchdog.beat("sweeps")
        await sweep(host, handler)
        most_s = await _until(host)


async def sweep(host: Host[Any], handler: Handler) -> bool:
    """Sweep now, unless another teacher that shares the rows does it.

    False if a sweep is at work here, which may not find what has come up since it began.
    """
    if SWEEP in host.in_progress:
        return False
    if await is_ours(host, SWEEPING, 2 * host.settings.sweep_interval_s):
        await asyncio.create_task(handler.sweep(), name="sweep")
    return True


async def _pause(host: Host[Any], loop: str, pause_s: Callable[[Settings], float], most_s: float = math.inf) -> None:
    """Wait for the seconds *pause_s* of the settings, which may be changed meanwhile, or for *most_s*."""
    since = time.monotonic()
    while (left_s := since + min(pause_s(host.settings), most_s) - time.monotonic()) > 0:
        host.watchdog.beat(loop)
        await asyncio.sleep(min(left_s, LOOK_S))


async def _until(host: Host[Any]) -> float:
    if not isinstance(host.settings, TeacherSettings):
        return float(host.settings.sweep_interval_s)
    deadline = await host.write_tx(transcodings.next_deadline, time.time())
    left = host.settings.sweep_interval_s if deadline is None else deadline - time.time() + 0.05
    return float(min(max(left, 1.0), host.settings.sweep_interval_s))


# -- old rows ----------------------------------------------------------------------------------------------------------
async def forget(host: Host[Any]) -> None:
    """Forget what is old, again and again until cancelled."""
    while True:
        host.watchdog.beat("retention")
        if await is_ours(host, PRUNING, PRUNING_S):
            await _forget(host)
        await _pause(host, "retention", lambda its: its.prune_interval_s)


async def _forget(host: Host[Any]) -> None:
    settings, now = host.settings, time.time()
    kept_s = settings.message_retention_s, settings.event_retention_s, settings.class_retention_s
    before = RowsBefore(*(now - seconds for seconds in (*kept_s, settings.as_run_retention_s, 0.0)))
    rules = retention.of_teacher(before) if isinstance(settings, TeacherSettings) else retention.of_streamer(before)
    for rule in rules:
        number = 0
        while keys := await host.read_tx(retention.outdated, rule):
            host.watchdog.beat("retention")
            forgotten = await host.write_tx(retention.forget, rule, keys)
            number += forgotten
            if not forgotten:
                break
            await asyncio.sleep(PAUSE_S)
        if number:
            log.info("retention: %d rows of %s are forgotten", number, rule.table.name)
    if isinstance(host, StreamerHost):
        await prune_quarantine(host)
