"""How messages are tried again: in a smaller company each time, at last alone; then they are given up, and answered."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import httpx
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import PrefectException
from redis.exceptions import RedisError
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from flows.host import Host, log
from flows.labels import class_of
from flows.tell import tell
from lectern import errors, outgoing
from lectern.body import fields_of
from lectern.effects.files import disk
from lectern.effects.rows import airings, bookings, events, inbox, outbox
from lectern.errors import TryAgain
from lectern.facts import Event, Kept
from lectern.messages import Report
from lectern.outgoing import Kind, Outgoing
from lectern.settings import TeacherSettings

COMPANY = (5000, 64, 8)
"""Number of messages that a run may have which have failed 0, 1, 2 times; with more failures each is alone."""

PAUSES_S = (1.0, 3.0, 8.0, 20.0)
"""Seconds until a message is tried again that has failed 1, 2, 3, 4 times."""

AWAY_S = 5.0
"""Seconds until messages are tried again whose run met a database, a Redis or a Prefect that was away."""

AWAY = (OperationalError, TryAgain, RedisError, httpx.HTTPError, PrefectException, ConnectionError, TimeoutError)


def portions(kept: Sequence[Kept]) -> list[list[Kept]]:
    """What each run gets: those that never failed together, the others apart from them, the fewer the oftener."""
    found: list[list[Kept]] = []
    for failures in sorted({min(one.tries, len(COMPANY)) for one in kept}):
        some = [one for one in kept if min(one.tries, len(COMPANY)) == failures]
        size = COMPANY[failures] if failures < len(COMPANY) else 1
        found += [some[first : first + size] for first in range(0, len(some), size)]
    return found


async def after(host: Host[Any], run: FlowRun, task: "asyncio.Task[State[Any] | None]") -> None:
    """Count a try of each message that *run*, which has ended by itself, has not handled; raises nothing."""
    text = run.parameters.get("inbox_ids")
    if not isinstance(text, str) or task.cancelled():
        return
    error, state = task.exception(), None if task.exception() else task.result()
    if error is None and (state is None or not (state.is_failed() or state.is_crashed())):
        return
    found = error if error is not None else getattr(state.data, "result", state.data) if state else None
    try:
        if isinstance(found, AWAY) or (isinstance(found, Exception) and disk.takes_nothing(found)):
            await host.commit(inbox.put_off, host.journal, inbox.ids_of(text), time.time() + AWAY_S)
        else:
            await failed(host, inbox.ids_of(text))
    except Exception:  # noqa: BLE001 (whatever it is, the run has ended: its place must be free again)
        log.exception("%s: its messages are tried again later, for their lease ends", run.name)


async def failed(host: Host[Any], ids: Sequence[int]) -> None:
    """A run of the messages *ids* has failed: those that it has not handled are tried again, or given up."""
    if await host.commit(_failed, host, ids):
        await tell(host)


def _failed(connection: Connection, host: Host[Any], ids: Sequence[int]) -> bool:
    """Whether one was given up, which only happens to a message that was alone in its run."""
    now = time.time()
    given_up = False
    for one in inbox.read(connection, host.journal, ids):
        if len(ids) == 1 and one.tries + 1 >= host.settings.inbox_tries:
            _give_up(connection, host, one, now)
            given_up = True
        else:
            pause_s = PAUSES_S[min(one.tries, len(PAUSES_S) - 1)]
            inbox.failed(connection, host.journal, [one.id], now + pause_s)
    return given_up


def _give_up(connection: Connection, host: Host[Any], one: Kept, now: float) -> None:
    """A dead letter, an alarm that names the class, an event for ``lectern explain``, and an answer to who waits."""
    class_id = class_of(one)
    why = f"not handled in {one.tries + 1} runs; see their logs"
    log.error("inbox %d: %s", one.id, why)
    inbox.bury(connection, host.journal, one, why, host.settings.dead_letter_stream, now)
    code = errors.NOT_HANDLED if class_id else errors.DEAD_LETTER
    answer = _answer(connection, host, one, class_id, why) if class_id else None
    what = f"{class_id}: " if class_id else ""
    alarm = outgoing.alarm(code, f"{what}inbox {one.id}: {why}", now, host.settings.name, class_id=class_id)
    outbox.put(connection, host.journal, [*([answer] if answer else []), host.alarm(alarm)], now)
    noted = Event("given up", class_id, detail=f"{one.command}: {why}")
    events.note(connection, host.journal, host.settings.name, [noted], now)


def _answer(connection: Connection, host: Host[Any], one: Kept, class_id: str, why: str) -> Outgoing | None:
    """The word to the platform of a booking, or to the teacher of a prepare, that nothing more will come of it."""
    code = errors.NOT_HANDLED.number
    if isinstance(host.settings, TeacherSettings):
        if one.command != "order" or class_id in bookings.by_id(connection, [class_id]):
            return None
        said = outgoing.answer(class_id, code, why)
        return Outgoing(host.settings.order_result_channel, Kind.CHANNEL, said, class_id)
    if one.command != "prepare" or class_id in airings.by_id(connection, [class_id]):
        return None
    placement = fields_of(one.body).get("placement", 1)
    report = Report(
        cmd="prepared",
        class_id=class_id,
        streamer=host.settings.name,
        result="fail",
        code=code,
        message=why,
        placement=placement if type(placement) is int else 1,
    )
    return Outgoing(host.settings.report_stream, Kind.STREAM, report, class_id)
