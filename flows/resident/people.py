"""Alarms that were sent are passed to people directly, whether or not Prefect is there."""

import asyncio
import logging
from typing import Any

from flows.host import Host
from lectern.backoff import backoff_s
from lectern.effects import notify

log = logging.getLogger("lectern")
LOOK_S = 1.0
SEND_S = 40.0
"""Seconds that all services together have to take an alarm."""

TRIES = 8
"""How often an alarm is tried, within some minutes; the channel and the log have it for good."""


async def tell(host: Host[Any]) -> None:
    """Pass alarms on until cancelled, the oldest first; without ALARM_URLS there is nothing to do."""
    urls = host.settings.alarm_urls
    if urls is None or not urls.get_secret_value().strip():
        return
    notify.services(urls.get_secret_value())  # raises Misuse, which is alarmed on the channel
    while True:
        host.rounds.come("people")
        if not host.to_people:
            await asyncio.sleep(LOOK_S)
            continue
        await _pass_on(host, host.to_people.popleft(), urls.get_secret_value())


async def _pass_on(host: Host[Any], alarm: str, urls: str) -> None:
    title, text, resolved = notify.written(alarm, host.settings.runbook_url, host.settings.lectern_lang)
    left = urls
    for number in range(TRIES):
        host.rounds.note("people")
        try:
            async with asyncio.timeout(SEND_S):
                refused = await asyncio.to_thread(notify.send, left, title, text, resolved=resolved)
        except TimeoutError:
            refused = ["all of them, within their time"]
        if not refused:
            return
        log.warning("alarms: %s does not take an alarm, try %d: %s", ", ".join(refused), number + 1, title)
        await asyncio.sleep(backoff_s(number))
    log.error("alarms: nobody could be told by ALARM_URLS: %s", title)
