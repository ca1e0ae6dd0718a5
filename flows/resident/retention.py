"""Deletes old rows by a timer, whatever else happens, so that no table grows for ever."""

import asyncio
import time
from typing import Any

from sqlalchemy import Connection

from flows.host import PRUNING, Host, is_ours, log
from lectern.effects.rows import cancels, peers, retention
from lectern.effects.rows.retention import Before, Rule
from lectern.settings import TeacherSettings

PAUSE_S = 0.05
"""Seconds between two slices: others write meanwhile."""

LEASE_S = 300.0
"""Seconds for which one of several teachers has the duty; deleting a slice takes well below one second."""


async def forget(host: Host[Any]) -> None:
    """Forget what is old, again and again until cancelled."""
    while True:
        host.rounds.come("retention")
        if await is_ours(host, PRUNING, LEASE_S):
            await _forget(host)
        await _pause(host)


async def _pause(host: Host[Any]) -> None:
    until = time.monotonic() + host.settings.prune_interval_s
    while (left := until - time.monotonic()) > 0:
        host.rounds.come("retention")
        await asyncio.sleep(min(left, 10.0))


async def _forget(host: Host[Any]) -> None:
    for rule in _rules(host, time.time()):
        number = 0
        while keys := await host.look(retention.outdated, rule):
            host.rounds.come("retention")
            forgotten = await host.commit(retention.forget, rule, keys)
            number += forgotten
            if not forgotten:
                break
            await asyncio.sleep(PAUSE_S)
        if number:
            log.info("retention: %d rows of %s are forgotten", number, rule.table.name)
    if isinstance(host.settings, TeacherSettings):
        await host.commit(_forget_small, time.time(), host.settings.keep_messages_s)


def _rules(host: Host[Any], now: float) -> list[Rule]:
    settings = host.settings
    kept = (settings.keep_messages_s, settings.keep_events_s, settings.keep_classes_s, settings.keep_as_run_s)
    before = Before(*(now - one for one in kept))
    return retention.of_teacher(before) if isinstance(settings, TeacherSettings) else retention.of_streamer(before)


def _forget_small(connection: Connection, now: float, keep_s: float) -> None:
    """Forget old rows of the small tables, which need no slices."""
    cancels.prune(connection, now)
    peers.forget(connection, now - keep_s)
