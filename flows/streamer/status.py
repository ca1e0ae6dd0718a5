"""What a streamer sends to its teacher with each heartbeat: what it airs, what its checks found, and what is wrong."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from flows.host import StreamerHost
from flows.playout_link import NotTaken
from lectern.db import account, airings, cache, forecast, incidents
from lectern.decide import account as decide
from lectern.decide.airing import STORY
from lectern.decide.bandwidth import in_words
from lectern.decide.forecast import slowness
from lectern.errors import TryAgain
from lectern.model.facts import Usage
from lectern.model.tables.streamer import journal
from lectern.model.views import Sending, StreamerStatus
from lectern.settings import StreamerSettings

SOON_S = 3600.0
ALARMS, CLASSES = 10, 20
"""Number of its newest open alarms that a streamer sends, and number of classes of each."""

AHEAD_EVERY_S = 60.0
"""Seconds between two looks at the next 24 hours, which may be thousands of classes."""


async def say(host: StreamerHost) -> None:
    """Send this streamer's status at each heartbeat, until cancelled."""
    coming: Mapping[str, Sequence[float]] = {}
    now_s, due = (0.0, 0.0), 0.0
    while True:
        host.watchdog.beat("word")
        settings = host.settings
        if time.monotonic() >= due:
            coming, due = await host.read_tx(ahead, time.time()), time.monotonic() + AHEAD_EVERY_S
            now_s = await host.read_tx(forecast.booked_now_s, settings, time.time(), slowness(host.checks))
        own = replace(await host.read_tx(word, settings, time.time()), ahead=coming)
        own = replace(own, booked_now_s=now_s)
        own = replace(own, sendings=await _sent(host, own.sendings), dead_air=host.dead_air, ready_by=host.ready_by)
        own = replace(own, bandwidth=in_words(host.shares), network=host.network)
        await host.bus.say(settings.streamers_key, settings.name, own)
        await asyncio.sleep(settings.heartbeat_interval_s)


async def _sent(host: StreamerHost, rows: Mapping[str, Sending]) -> Mapping[str, Sending]:
    """What the playout says of the classes that should be on air; *rows* say when something went wrong last."""
    try:
        answer = await host.playout.ask("status", active=True)
    except (TryAgain, NotTaken) as error:
        return {class_id: decide.without_playout(error.message) for class_id in rows}
    now = time.time()
    sendings = dict.fromkeys(rows, decide.NOT_IN_PLAYOUT)  # the last report in the rows may be long outdated
    for status in answer["classes"]:
        if (class_id := status["class_id"]) in rows:
            sending = decide.of_playout(status, now)
            if sending.gaps:
                events = await host.read_tx(account.story_events, class_id, STORY)
                sending = decide.of_playout(status, now, events)
            sendings[class_id] = replace(sending, why_at=rows[class_id].why_at)
    return sendings


def ahead(connection: Connection, now: float) -> Mapping[str, Sequence[float]]:
    """What classes need of the cache in each of the next 24 hours."""
    return {decide.NEEDED: decide.cache_ahead(airings.needed(connection, now), now)}


def word(connection: Connection, settings: StreamerSettings, now: float) -> StreamerStatus:
    """The status of this streamer at *now* (epoch seconds)."""
    soon = airings.live(connection, now + SOON_S)
    due = [airing for airing in soon if airing.start_time <= now < airing.end_time]
    alarms = sorted(incidents.alarms(connection, journal, settings.name), key=lambda alarm: -alarm.last_at)
    return StreamerStatus(
        at=now,
        sendings={airing.class_id: Sending(on_air=False) for airing in due} | account.sendings(connection, due),
        checks=account.checks(connection, [airing.class_id for airing in soon]),
        alarms=[incidents.shortened(alarm, CLASSES) for alarm in alarms[:ALARMS]],
        alarms_number=len(alarms),
        due=len(due),
        used=cache.used(connection, settings.video_root),
        bound=Usage(settings.max_bytes, settings.max_video_num),
    )
