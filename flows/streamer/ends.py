"""The end of a class: its citation is taken back, and its teacher hears once, in true words, how it was aired."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from flows.host import Host
from flows.tell import tell
from lectern import errors
from lectern.decide import broadcast as decide
from lectern.effects.rows import airings, as_run, cache, events, outbox
from lectern.effects.rows.airings import Airing
from lectern.errors import ErrorCode
from lectern.facts import AsRun, Event
from lectern.outgoing import Kind, Outgoing
from lectern.settings import StreamerSettings
from lectern.states import LIVE_AIRINGS, AiringState

Streamer = Host[StreamerSettings]
CANCELLED = "it was cancelled"
"""The playout's word for the end of a class that somebody took off the air."""


async def ended(host: Streamer, class_id: str, told: Mapping[str, Any]) -> None:
    """Close a class of which the playout says how it ended: *told* is its event `ended`, or its `status`."""
    await host.commit(_ended, host, class_id, told)
    host.playout.over(class_id)
    await tell(host)


def _ended(connection: Connection, host: Streamer, class_id: str, told: Mapping[str, Any]) -> None:
    parts = decide.as_run(told["as_run"])
    as_run.keep(connection, class_id, parts)
    one = airings.by_id(connection, [class_id]).get(class_id)
    if one is None:
        return
    if one.state is AiringState.CANCELLED and parts:  # its teacher was told before it was taken off the air
        _report(connection, host, one, errors.CANCELLED, "what was sent before it was cancelled", parts)
    if one.state not in LIVE_AIRINGS - {AiringState.WAITING} or told["why"] == CANCELLED:
        return
    row = cache.by_stem(connection, [one.stem]).get(one.stem)
    duration_s = row.duration_s if row is not None and row.duration_s is not None else math.inf
    length_s = min(one.end_time - one.start_time, duration_s)
    total = decide.sums(told)
    said = decide.how_aired(parts, total, one.start_time, length_s)
    if said is None:
        why = decide.not_aired(total, told.get("last") or told["why"])
        release(connection, host, one, AiringState.BROKEN, errors.AIRING_BROKEN, why, parts)
    else:
        release(connection, host, one, AiringState.AIRED, None, f"{said}; {told['why']}", parts)


async def close(host: Streamer, one: Airing, state: AiringState, code: ErrorCode | None, message: str) -> None:
    """Release a class that the playout did not bring to its end, and tell its teacher why."""
    await host.commit(release, host, one, state, code, message)
    host.playout.over(one.class_id)
    await tell(host)


def release(
    connection: Connection,
    host: Streamer,
    one: Airing,
    state: AiringState,
    code: ErrorCode | None,
    message: str,
    parts: Sequence[AsRun] = (),
) -> None:
    """The class is over: its citation is taken back, and the teacher is told, once."""
    now = time.time()
    current = airings.by_id(connection, [one.class_id])[one.class_id]
    if current.state in {AiringState.AIRED, AiringState.CANCELLED}:
        return  # released meanwhile
    if state is AiringState.AIRED and current.state is AiringState.READY:  # it was over before anybody saw it on air
        airings.move(connection, current, AiringState.ON_AIR, now)
        current = airings.by_id(connection, [one.class_id])[one.class_id]
    airings.move(connection, current, state, now, code=code, message=message)
    if now >= one.end_time:  # before its end a person may retry a broken one
        airings.give_up(connection, current, now)
    _report(connection, host, current, code, message, parts)
    events.note(connection, host.journal, host.settings.name, [Event(state, one.class_id, one.stem, message)], now)


async def close_late(host: Streamer, one: Airing) -> None:
    """Close a class whose end has passed and that nobody airs: its process was not there, or its disk was full."""
    await host.commit(_close_late, host, one.class_id)
    host.playout.over(one.class_id)


def _close_late(connection: Connection, host: Streamer, class_id: str) -> None:
    one, now = airings.by_id(connection, [class_id])[class_id], time.time()
    if one.state is AiringState.WAITING:
        code, why = errors.ENDED, "it ended before its rendition was there"
        airings.move(connection, one, AiringState.REFUSED, now, code=code, message=why)
        said = airings.report("prepared", one, host.settings.name, code, why)
        outbox.put(connection, host.journal, [Outgoing(host.settings.report_stream, Kind.STREAM, said, class_id)], now)
    elif one.state is AiringState.BROKEN:
        airings.give_up(connection, one, now)  # its end was reported before
        return
    else:
        code, why = errors.AIRING_BROKEN, "not aired to its end: nobody knows how much of it was sent"
        airings.move(connection, one, AiringState.BROKEN, now, code=code, message=why)
        airings.give_up(connection, one, now)
        _report(connection, host, one, code, why)
    events.note(connection, host.journal, host.settings.name, [Event("closed late", one.class_id, one.stem, why)], now)


def _report(
    connection: Connection,
    host: Streamer,
    one: Airing,
    code: ErrorCode | None,
    message: str,
    parts: Sequence[AsRun] = (),
) -> None:
    said = airings.report("ended", one, host.settings.name, code, message, parts)
    stream = host.settings.report_stream
    outbox.put(connection, host.journal, [Outgoing(stream, Kind.STREAM, said, one.class_id)], time.time())
