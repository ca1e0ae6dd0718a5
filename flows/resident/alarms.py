"""Alarms reach people: on the channel, in the log, and as events of Prefect that automations can act upon."""

import asyncio
import json
import logging
import time
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from uuid import uuid4

import httpx
from prefect.client.orchestration import PrefectClient
from sqlalchemy import Connection

from flows import trouble
from flows.host import Host
from flows.retry import AWAY
from flows.tell import patience, tell, tell_people
from lectern import chinese_account, errors
from lectern.effects.redis.address import asking
from lectern.effects.rows import incidents, outbox
from lectern.errors import TryAgain
from lectern.outgoing import Kind, Outgoing
from lectern.settings import Settings
from lectern.shown import plain

log = logging.getLogger("lectern")
EVENT = "lectern.alarm"
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
            host.alarmed_at.pop("redis", None)
        except TryAgain as error:
            now = time.monotonic()
            if now - well_at >= AWAY_S:
                host.ongoing[errors.REDIS_AWAY.number] = now
                why = f"Redis has not answered for {now - well_at:.0f} s: {plain(error.__cause__ or error)}"
                await trouble.raised(host, "redis", errors.REDIS_AWAY, f"{host.settings.name}: {why}", tell_people)
        await asyncio.sleep(AGAIN_S)


async def watch(host: Host[Any], client: PrefectClient) -> None:
    """Send follow-ups of incidents that grow, last or are resolved, and pass sent alarms on to Prefect."""
    while True:
        host.rounds.come("alarms")
        await asyncio.sleep(min(FOLLOW_UP_S, host.settings.alarm_group_s or FOLLOW_UP_S))
        if await host.commit(_follow_up, host):
            await tell(host)
        await _emit(host, client)


def _follow_up(connection: Connection, host: Host[Any]) -> int:
    now = time.time()
    due = incidents.follow_up(connection, host.journal, host.settings.name, patience(host), now)
    outbox.put(connection, host.journal, [Outgoing(host.settings.alarm_channel, Kind.CHANNEL, one) for one in due], now)
    return len(due)


PASS_ON_S = 8.0
"""Seconds that a Prefect server has to take the alarms, because the follow-up of incidents waits for it."""

PORTION = 200
"""Number of alarms that are passed on at once."""


NOT_THEIRS = (401, 403, 407, 408, 429)
"""Answers of a Prefect server, or of a proxy before it, that say nothing about the alarms: they wait for another."""


async def _emit(host: Host[Any], client: PrefectClient) -> None:
    waiting = list(islice(host.alarmed, PORTION))
    if not waiting:
        return
    events = [event for body in waiting if (event := _event(host.settings, body)) is not None]
    try:
        async with asyncio.timeout(PASS_ON_S):
            if events:
                await _pass_on(client, events)
    except AWAY as error:
        log.warning("prefect: %d alarms are not passed on yet: %r", len(waiting), error)
        return
    for body in waiting:  # newer alarms may have pushed the oldest out meanwhile
        if host.alarmed and host.alarmed[0] is body:
            host.alarmed.popleft()


async def _pass_on(client: PrefectClient, events: list[dict[str, object]]) -> None:
    """Send alarms as events; an event that Prefect refuses is logged, and holds up no other."""
    try:
        await client.request("POST", "/events", json=events)
    except httpx.HTTPStatusError as error:
        if not error.response.is_client_error or error.response.status_code in NOT_THEIRS:
            raise
        if len(events) == 1:
            log.error("prefect: does not take an alarm: %s: %.500r", error, events[0])
        for one in events if len(events) > 1 else ():
            await _pass_on(client, [one])


def _event(settings: Settings, body: str) -> dict[str, object] | None:
    try:
        return _made(settings, body)
    except (ValueError, LookupError, TypeError) as error:
        log.error("prefect: an alarm cannot be passed on: %r: %.500s", error, body)
        return None


def _made(settings: Settings, body: str) -> dict[str, object]:
    fields, name = json.loads(body), settings.name
    if settings.lectern_lang == "zh":
        fields["message"] = chinese_account.message(fields["code"], fields["message"])
    wanted = ("code", "class_id", "record_id", "video_resolution", "stage", "count", "runbook")
    return {
        "id": str(uuid4()),
        "occurred": datetime.fromtimestamp(fields["at"], UTC).isoformat(),
        "event": EVENT,
        "resource": {"prefect.resource.id": f"lectern.host.{name}", "prefect.resource.name": name},
        "payload": {"message": fields["message"], **{one: fields[one] for one in wanted if one in fields}},
    }
