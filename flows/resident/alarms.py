"""Incidents are followed up, and an alarm is raised while Redis is away."""

import asyncio
import time
from typing import Any

from sqlalchemy import Connection

from flows import trouble
from flows.host import Host
from flows.tell import patience, tell, tell_people
from lectern import errors
from lectern.effects.redis.address import asking
from lectern.effects.rows import incidents, outbox
from lectern.errors import TryAgain
from lectern.outgoing import Kind, Outgoing
from lectern.shown import plain

FOLLOW_UP_S = 5.0


PING_S, AGAIN_S = 3.0, 2.0
AWAY_S = 10.0
"""Seconds without Redis after which an alarm is raised."""


async def watch_redis(host: Host[Any]) -> None:
    """Raise an alarm while Redis is away, which hides behind classes that go on; ALARM_URLS need no Redis."""
    well_at = time.monotonic()
    while True:
        host.rounds.come("redis")
        try:
            async with asking(PING_S):
                await host.bus.ping()
            well_at = time.monotonic()
            host.alarmed_at.forget("redis")
        except TryAgain as error:
            now = time.monotonic()
            if now - well_at >= AWAY_S:
                host.ongoing[errors.REDIS_AWAY.number] = now
                why = f"Redis has not answered for {now - well_at:.0f} s: {plain(error.__cause__ or error)}"
                await trouble.raised(host, "redis", errors.REDIS_AWAY, f"{host.settings.name}: {why}", tell_people)
        await asyncio.sleep(AGAIN_S)


async def watch(host: Host[Any]) -> None:
    """Send follow-ups of incidents that grow, last or are resolved."""
    while True:
        host.rounds.come("alarms")
        await asyncio.sleep(min(FOLLOW_UP_S, host.settings.alarm_group_s or FOLLOW_UP_S))
        if await host.commit(_follow_up, host):
            await tell(host)


def _follow_up(connection: Connection, host: Host[Any]) -> int:
    now = time.time()
    due = incidents.follow_up(connection, host.journal, host.settings.name, patience(host), now)
    outbox.put(connection, host.journal, [Outgoing(host.settings.alarm_channel, Kind.CHANNEL, one) for one in due], now)
    return len(due)
