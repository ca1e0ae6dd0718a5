"""Sends the outbox: answers, alarms and orders to streamers, each once; a message that Redis refuses stops no other."""

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pydantic_core import from_json
from sqlalchemy import ColumnElement, Connection

from flows.host import Host, TeacherHost, log
from lectern import errors
from lectern.db import bookings, events, incidents, outbox
from lectern.db.incidents import AlertPolicy
from lectern.db.outbox import Refusal, Unsent
from lectern.errors import TryAgain
from lectern.i18n import Text
from lectern.model.facts import Event
from lectern.redis.client import Sent
from lectern.redis.connection import asking
from lectern.settings import TeacherSettings
from lectern.wire import outgoing

SEND_BATCH = 5000
ANSWERS_S = 3.0
LATE_S = 1.0  # seconds after which an answer has waited for Redis, or for this process: its class may be over meanwhile
STANDS_STILL_S = 5.0
"""Seconds for which a process that is about to send may stand still and still send: others begin to take over what it
had claimed 6 s after it stopped, see `flows.resident.peers.SILENT`."""

SEEN_S = 60.0  # seconds for which trouble counts as going on after it was last seen; every check for it repeats sooner
WATCHED_S = 15.0
WATCHED = frozenset(
    one.number
    for one in (errors.AIRING_BROKEN, errors.STREAMER_LOST, errors.NO_RECORDING, errors.PLAYOUT_AWAY, errors.REDIS_AWAY)
)
"""Trouble that is looked for every few seconds: once seen so, it is resolved WATCHED_S after it was last seen."""


def patience(host: Host[Any]) -> AlertPolicy:
    """The times after which this host repeats alarms, and the trouble that goes on, so that it is not resolved yet."""
    settings, now = host.settings, time.monotonic()
    goes_on = {code for code, at in host.ongoing.items() if now - at < (WATCHED_S if code in WATCHED else SEEN_S)}
    ended = {code: now - at for code, at in host.ongoing.items() if code in WATCHED - goes_on}
    if host.watchdog.failing(0) or host.prefect_away:  # of the latter an alarm is raised if it lasts
        goes_on.add(errors.WORK_FAILED.number)
    if isinstance(host, TeacherHost) and host.webhook_off:
        goes_on.add(errors.WEBHOOK_REFUSES.number)
    if getattr(settings, "oss_transcode_url", None) is None:  # no request is made that it could take
        goes_on.discard(errors.OSS_REFUSES.number)
    lasts_s: dict[int, float] = {}
    if isinstance(settings, TeacherSettings):  # it is tried again then, and may be put aside once more
        lasts_s[errors.HOST_ASIDE.number] = settings.ecs_cooldown_s + SEEN_S
    waits = settings.alarm_group_s, settings.alarm_escalate_s, settings.alarm_quiet_s
    return AlertPolicy(*waits, frozenset(goes_on), lasts_s, ended, settings.shared)


async def publish_outbox(host: Host[Any]) -> bool:
    """Send the outbox, oldest first. False if Redis is away: then the sweeper sends it again."""
    async with host.send_lock:
        while (batch := await _next(host)).messages:
            sending = batch.sending
            host.waiters.wake(one.class_id for one in sending)
            done = await (_send(host, sending, batch.until) if host.settings.shared else host.bus.send(sending))
            now = time.time()
            # The note of what was sent may wait for the next commit, but not for alarms.
            can_wait = not (host.settings.shared or done.broke is not None or done.refused)
            can_wait = can_wait and len(batch.messages) < SEND_BATCH > len(host.acks.ids())
            if can_wait and not _alarms(host, batch.messages):
                write = partial(_sent, host=host, batch=batch, done=done, now=now)
                host.acks.add((one.id for one in sending), write)
            elif done.number or not sending:
                told = await host.write_tx(_sent, host, batch, done, now)
                for target in {one.message.target for one in done.refused}:
                    refusal_alarmed(host, target)
                for one in _alarms(host, told):
                    _log(one.body)
            if done.broke is not None:
                log.warning("redis: %d messages stay unsent: %s", len(sending) - done.number, done.broke)
                left = [*sending[done.number :]]
                for such in _without_redis(host) if len(batch.messages) == SEND_BATCH else ():  # behind those read
                    left += (await host.write_tx(_unsent, host, such)).sending
                if host.settings.shared or _alarms(host, left) or getattr(host.settings, "event_webhook_url", None):
                    await host.write_tx(_left, host, left)
                return False
            if len(batch.messages) < SEND_BATCH and not done.late:  # whoever committed more meanwhile sends it
                break
    return True


async def _send(host: Host[Any], sending: Sequence[Unsent], until: float) -> Sent:
    """Send messages that this host has claimed *until* then (monotonic); send nothing after that.

    If Redis does not answer this teacher soon, others may reach Redis; if this process stands still meanwhile, at
    whatever point, another teacher has sent the messages.
    """
    try:
        async with asking(ANSWERS_S):
            now = await host.bus.now()
    except TryAgain as error:
        host.redis_away = True
        return Sent(broke=error)
    if time.monotonic() > until:
        return Sent(late=True)
    return await host.bus.send(sending, now + STANDS_STILL_S)


async def tell_people(host: Host[Any]) -> None:
    """Pass unsent alarms on to ALARM_URLS without trying Redis, which is away, whatever waits for Redis before them."""
    batch = await host.write_tx(_unsent, host, _without_redis(host)[0])
    if alarms := _alarms(host, batch.sending):
        await host.write_tx(_left, host, batch.sending)
        for one in alarms:
            _log(one.body)


def _left(connection: Connection, host: Host[Any], left: Sequence[Unsent]) -> None:
    """While Redis is away, pass alarms on to people, who need no Redis, and leave the messages to another teacher."""
    alarms = [one for one in _alarms(host, left) if not one.is_told]
    _told(connection, host, alarms, (), time.time())
    _for_webhook(connection, host, left)
    if host.settings.shared:
        outbox.unclaim(connection, host.settings.name, [one.id for one in left])


def _without_redis(host: Host[Any]) -> list[ColumnElement[bool]]:
    """Conditions for what needs no Redis and is not passed on yet: alarms for people; answers for the webhook."""
    rows, settings = outbox.outbox, host.settings
    some = [(rows.c.target == settings.alarm_channel) & rows.c.people.is_(None)]
    if isinstance(host, TeacherHost) and host.settings.event_webhook_url and not host.webhook_off:
        some.append(rows.c.target.in_(host.settings.webhook_channels) & rows.c.webhook.is_(None))
    if settings.shared:  # what another teacher sends now is its own
        some = [such & outbox.free(settings.name, time.time()) for such in some]
    return some


def _for_webhook(connection: Connection, host: Host[Any], some: Sequence[Unsent]) -> None:
    """Mark the answers and events among *some* to be posted to EVENT_WEBHOOK_URL, each once."""
    if isinstance(host, TeacherHost) and host.settings.event_webhook_url and not host.webhook_off:
        channels = host.settings.webhook_channels
        told = [one.id for one in some if one.target in channels]
        outbox.note_due(connection, "webhook", told)


def _told(
    connection: Connection, host: Host[Any], alarms: Sequence[Unsent], told: Sequence[Unsent], now: float
) -> None:
    """Note which incidents that began with one of *alarms* are known: the channel was *told*, or people are, now."""
    known = alarms if host.settings.alarm_services else _alarms(host, told)
    if host.settings.alarm_services:  # also what Redis refused: people need it all the more
        outbox.note_due(connection, "people", [one.id for one in alarms])
    incidents.told(connection, [one.id for one in known], now)


def _log(body: str) -> None:
    """Log an alarm as an error, and the end of an incident as information."""
    if from_json(body).get("stage") == incidents.Stage.RESOLVED:
        log.info("alarm: %s", body)
    else:
        log.error("alarm: %s", body)


def _alarms(host: Host[Any], some: Sequence[Unsent]) -> list[Unsent]:
    alarm_channel = host.settings.alarm_channel
    return [one for one in some if one.target == alarm_channel]


async def _next(host: Host[Any]) -> "_Batch":
    """The messages to send now; reads without a lock unless alarms are to be folded, or other hosts send too."""
    if not host.settings.shared:
        sent = host.acks.ids()
        limit, now = SEND_BATCH + len(sent), time.time()
        found = await host.read_tx(outbox.unsent, limit=limit, now=now)
        found = [one for one in found if one.id not in sent][:SEND_BATCH]
        if not _alarms(host, found) and not _waited(host, found, now):
            return _Batch(found, found)
    return await host.write_tx(_unsent, host)


@dataclass(frozen=True)
class _Batch:
    messages: Sequence[Unsent]
    sending: Sequence[Unsent]  # all messages but the folded alarms
    folded: Collection[int] = ()  # ids of alarms of an incident that is known already
    until: float = math.inf  # monotonic: after this time another teacher may have claimed them


def _unsent(connection: Connection, host: Host[Any], such: ColumnElement[bool] | None = None) -> _Batch:
    now = time.time()
    until = math.inf
    if host.settings.shared and such is None:
        until = time.monotonic() + outbox.SENDING_S / 2
        found = outbox.claim(connection, host.settings.name, limit=SEND_BATCH, now=now)
    else:
        found = outbox.unsent(connection, limit=SEND_BATCH, now=now, such=such)
    sent = host.acks.ids()
    found = _in_time(connection, host, [one for one in found if one.id not in sent], now)
    folded = incidents.fold(connection, _alarms(host, found), patience(host), now)
    return _Batch(found, [one for one in found if one.id not in folded], folded, until)


def _waited(host: Host[Any], some: Sequence[Unsent], now: float) -> list[Unsent]:
    """The answers to bookings that have waited to be sent, and of which nobody has heard a part."""
    if not isinstance(host.settings, TeacherSettings):
        return []
    to = host.settings.order_result_channel
    return [one for one in some if one.target == to and not one.is_told and abs(now - one.created_at) > LATE_S]


def _in_time(connection: Connection, host: Host[Any], found: Sequence[Unsent], now: float) -> list[Unsent]:
    """The messages *found*; an answer that has waited until its class was over is no success any more."""
    waited = [one for one in _waited(host, found, now) if one.class_id is not None and from_json(one.body)["code"] == 0]
    over = bookings.over_unheard(connection, [str(one.class_id) for one in waited], now) if waited else set()
    if not over:
        return list(found)
    why = Text("it ended before its answer could be sent")
    late = {
        one.id: replace(one, body=outgoing.answer(one.class_id, errors.ENDED.number, why).to_json())
        for one in waited
        if one.class_id in over
    }
    outbox.rewrite(connection, list(late.values()))
    bookings.promised_late(connection, over, now)
    noted = [Event("answered with 410", class_id, detail=why) for class_id in sorted(over)]
    events.note(connection, host.settings.name, noted, now)
    return [late.get(one.id, one) for one in found]


def _sent(connection: Connection, host: Host[Any], batch: _Batch, done: Sent, now: float) -> list[Unsent]:
    """Note what became of a sent batch; returns the messages of which a first part, at least, was delivered now."""
    reached = batch.sending[: done.number]
    rest = {one.message.id: one.rest for one in done.refused}
    ids = [one.id for one in reached if one.id not in rest]
    outbox.sent(connection, [*ids, *batch.folded], now)
    told = [one for one in reached if not one.is_told and rest.get(one.id) != one.todo]
    if done.refused:
        _refused(connection, host, done.refused, now)
    _for_webhook(connection, host, reached)
    if alarms := _alarms(host, reached):
        _told(connection, host, alarms, told, now)
    if isinstance(host.settings, TeacherSettings):
        to = host.settings.order_result_channel
        heard = [one.class_id for one in told if one.target == to and one.class_id is not None]
        bookings.answered(connection, heard, now)
    return told


def _refused(connection: Connection, host: Host[Any], refused: Sequence[Refusal], now: float) -> None:
    """Try each message that Redis refused again by itself, and raise an alarm for its target while it is refused."""
    outbox.refused(connection, refused, now)
    targets = {one.message.target: one.why for one in refused}
    for target, why in targets.items():
        number = sum(one.message.target == target for one in refused)
        log.warning("redis: refuses %d messages for %s, they are tried again: %s", number, target, why)
        said = Text("Redis refuses messages for {target}: {why}", target=target, why=why)
        alarm_refusal(connection, host, said, target)


def alarm_refusal(connection: Connection, host: Host[Any], said: str, target: str) -> None:
    """Raise an alarm that Redis refuses something of *target*, again while it does, so that its incident stays open.

    Call `refusal_alarmed` after the commit: what is rolled back is not raised.
    """
    now = time.time()
    if host.alarmed_at.due(f"refused {target}", host.settings.alarm_quiet_s / 2):
        outbox.put(connection, [host.alarm(errors.REFUSED_BY_REDIS, said, now)], now)


def refusal_alarmed(host: Host[Any], target: str) -> None:
    """Note that the alarm about *target* is raised, and is not to be raised again soon."""
    host.alarmed_at.take(f"refused {target}", host.settings.alarm_quiet_s / 2)
