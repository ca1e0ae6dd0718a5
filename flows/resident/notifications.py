"""Alarms: passed on to people directly (ALARM_URLS), followed up, and raised while Redis is away."""

import asyncio
import itertools
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy import Connection

from flows import failures
from flows.host import TELLING, Host, is_ours
from flows.outbox_publisher import SEEN_S, patience, publish_outbox, tell_people
from lectern import errors, notify
from lectern.db import incidents, outbox
from lectern.db.outbox import Telling
from lectern.errors import CODES, TryAgain
from lectern.i18n import Text, labelled
from lectern.timing import backoff_s
from lectern.urls import plain
from lectern.wire.outgoing import Outgoing, OutgoingKind

log = logging.getLogger("lectern")
LOOK_S = 1.0
SEND_S = 40.0  # seconds that all services together have to take an alarm
TRIES = 8  # number of times that an alarm is tried at least; the channel and the log have it in any case
NOBODY_S = 300.0  # seconds for which it is tried while no service takes it: what it is about may be the network
LEASE_S = 120.0
"""Seconds for which one teacher of several passes alarms on; a try and the pause after it take less than half."""

_SENDERS = ThreadPoolExecutor(4, thread_name_prefix="people")
"""Threads that send alarms, one for a try and others for tries that take longer: asyncio's own may all hang with the
disk that the alarm is about."""

FOLLOW_UP_S = 5.0


class People:
    """Passes the alarms of one host to ALARM_URLS, the oldest first.

    Due alarms are kept in the outbox, so that a process that is killed loses none: the next one passes them on. If
    the process ends after the services took an alarm and before that is noted, they get that alarm a second time.
    """

    def __init__(self, host: Host[Any]) -> None:
        self._host = host
        self._unnoted: dict[int, Telling] = {}  # results not in the database yet: no alarm is passed on twice
        self._dead: set[str] = set()  # services that took no try of an alarm, and nothing since

    async def tell(self) -> None:
        """Pass alarms on until cancelled; without ALARM_URLS there is nothing to do until they are set."""
        host = self._host
        notify.services(host.settings.alarm_services)  # raises Misuse, which is alarmed on the channel
        while True:
            host.watchdog.beat("people")
            if host.settings.alarm_services and host.to_people:
                await self._pass_on(host.to_people.popleft())
            elif not host.settings.alarm_services or not await self._pass_on_due():
                await asyncio.sleep(LOOK_S)

    async def _pass_on_due(self) -> bool:
        """Pass on the oldest alarm that is due. False if there is none, or another teacher passes them on."""
        host = self._host
        # Read again when the duty is ours: another teacher may have passed it on before.
        if await self._due() and await is_ours(host, TELLING, LEASE_S):
            for id_, body in await self._due():
                how = await self._pass_on(body, is_due=True)
                if how is None:
                    return False
                self._unnoted[id_] = how
        if not self._unnoted:
            return False
        await host.write_tx(outbox.note_people, dict(self._unnoted))
        self._unnoted.clear()
        return True

    async def _due(self) -> list[tuple[int, str]]:
        due = await self._host.read_tx(outbox.people_due, 1 + len(self._unnoted))
        return [row for row in due if row[0] not in self._unnoted][:1]

    async def _pass_on(self, alarm: str, *, is_due: bool = False) -> Telling | None:
        """Send *alarm* to all services, with retries; None if it *is_due*, and another teacher passes alarms on now."""
        settings = self._host.settings
        try:
            title, text, resolved = notify.written(alarm, settings.runbook_url, settings.lectern_lang)
        except (ValueError, LookupError, TypeError) as error:  # an odd alarm must hold up no other
            log.error("alarms: an alarm cannot be passed on: %r: %.500s", error, alarm)
            return Telling.GIVEN_UP
        took, left = set[str](), list[str]()
        until = time.monotonic() + NOBODY_S
        for number in itertools.count():
            self._host.watchdog.note("people")
            if is_due and not await is_ours(self._host, TELLING, LEASE_S):
                return None
            urls = self._host.settings.alarm_services  # which may be corrected meanwhile
            names = [name for name, _ in notify.services(urls)]
            left = [name for name in names if name not in took]
            if not left:  # the last one took it after its time
                return Telling.TOLD
            send = partial(notify.send, urls, title, text, resolved=resolved, only=left, on_taken=took.add)
            with suppress(TimeoutError):
                async with asyncio.timeout(SEND_S):
                    await asyncio.get_running_loop().run_in_executor(_SENDERS, send)
            self._dead -= took
            left = [name for name in names if name not in took]
            if not left:
                return Telling.TOLD
            log.warning("alarms: %s does not take an alarm, try %d: %s", ", ".join(left), number + 1, title)
            if number + 1 >= TRIES and (took or time.monotonic() >= until):
                break
            if took and self._dead.issuperset(left):
                break  # its minutes of tries would hold up each alarm for those who take them
            await asyncio.sleep(backoff_s(number))
        self._dead.update(left)
        if took:
            log.error("alarms: %s was not told, others were: %s", ", ".join(left), title)
        else:
            log.error("alarms: nobody could be told by ALARM_URLS: %s", title)
        return Telling.GIVEN_UP


async def redis_away(host: Host[Any], away_s: float, error: TryAgain) -> None:
    """Raise an alarm that Redis is away, which hides behind classes that go on; ALARM_URLS need no Redis."""
    host.ongoing[errors.REDIS_AWAY.number] = time.monotonic()
    why = Text("Redis has taken nothing for {away_s:.0f} s: {why}", away_s=away_s, why=plain(error.__cause__ or error))
    await failures.raised(host, "redis", errors.REDIS_AWAY, labelled(host.settings.name, why), tell_people)


async def watch(host: Host[Any]) -> None:
    """Send follow-ups of incidents that grow, last or are resolved."""
    began = time.monotonic()
    while True:
        host.watchdog.beat("alarms")
        await asyncio.sleep(min(FOLLOW_UP_S, host.settings.alarm_group_s or FOLLOW_UP_S))
        if await host.write_tx(_follow_up, host, is_new=time.monotonic() - began < SEEN_S):
            await publish_outbox(host)


def _follow_up(connection: Connection, host: Host[Any], *, is_new: bool) -> int:
    now, policy = time.time(), patience(host)
    if is_new and not policy.shared:  # nobody has looked yet whether what the process before saw goes on
        policy = replace(policy, goes_on=CODES)
    due = incidents.follow_up(connection, host.settings.name, policy, now)
    alarms = [Outgoing(host.settings.alarm_channel, OutgoingKind.CHANNEL, alarm) for alarm in due]
    outbox.put(connection, alarms, now)
    return len(due)
