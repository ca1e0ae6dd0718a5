"""How messages are tried again: with fewer others each time, at last alone; then they are given up and answered."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

from prefect.client.schemas.objects import FlowRun, State
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from flows import trouble
from flows.host import Host, log
from flows.tell import tell
from lectern import errors, outgoing
from lectern.commands import fields_of
from lectern.effects.files import disk
from lectern.effects.rows import airings, events, inbox, outbox, revisions
from lectern.errors import CallAPerson, Misuse, TryAgain
from lectern.facts import Event, Kept, Work
from lectern.messages import Report
from lectern.outgoing import Kind, Outgoing
from lectern.run_records import CLASSES, FAILED, label_of, name_of, tags_of
from lectern.settings import TeacherSettings
from lectern.timing import backoff_s

COMPANY = (1000, 64, 8)
"""Most messages in a run after 0, 1 and 2 failures of each; a message that failed more often is alone in its run.

A larger run would handle no message sooner, and the next host would have nothing to do until all are handled.
"""

PAUSES_S = (1.0, 3.0, 8.0, 20.0)
"""Seconds until a message is retried after 1, 2, 3 and 4 failures."""

AGAIN_S = 2.0
AWAY_S = 5.0
"""Seconds until messages are retried after the database, Redis or Prefect was away (TryAgain, and other errors)."""

PUTS_BACK = 7
"""Number of retries to put messages back, within half a minute; afterwards their lease expires soon anyway."""

AWAY = (OperationalError, TryAgain, ConnectionError, TimeoutError)


def portions(kept: Sequence[Kept]) -> list[list[Kept]]:
    """Split messages into runs: those that never failed stay together; the more often they failed, the fewer."""
    found: list[list[Kept]] = []
    for failures in sorted({min(one.tries, len(COMPANY)) for one in kept}):
        some = [one for one in kept if min(one.tries, len(COMPANY)) == failures]
        size = COMPANY[failures] if failures < len(COMPANY) else 1
        found += [some[first : first + size] for first in range(0, len(some), size)]
    return found


async def after(
    host: Host[Any], ids: Sequence[int], error: Exception, *, passes: bool, flow: str | None = None
) -> None:
    """Put back the messages among *ids* that are not handled; counts a failure of *flow* unless it *passes*."""
    if not passes:
        await failed(host, ids, flow, trouble.words(error))
        return
    pause_s = AGAIN_S if isinstance(error, TryAgain) else AWAY_S
    for failures in range(PUTS_BACK):
        try:
            await host.commit(_put_off, host, ids, time.time() + pause_s)
        except OperationalError as away:
            log.info("inbox: %d messages are put back when the database is there again: %r", len(ids), away.orig)
            await asyncio.sleep(backoff_s(failures))
        else:
            return
    await host.commit(_put_off, host, ids, time.time() + pause_s)


async def after_run(host: Host[Any], run: FlowRun, task: "asyncio.Task[State[Any] | None]") -> None:
    """Count the failures of a run that somebody began in the UI."""
    text = run.parameters.get("inbox_ids")
    if not isinstance(text, str) or run.parameters.get("dry_run") or task.cancelled():
        return
    try:
        ids = inbox.ids_of(text)
    except Misuse:  # a person typed it, and the run says so
        return
    error, state = task.exception(), None if task.exception() else task.result()
    is_bad = error is not None or (state is not None and (state.is_failed() or state.is_crashed()))
    found = error if error is not None else getattr(state.data, "result", state.data) if state else None
    async with trouble.isolated(host, f"the messages of {run.name}", through=()):  # its place must be free again
        if is_bad and isinstance(found, Exception):
            await after(host, ids, found, passes=await is_away(host, found))
        elif is_bad:
            await failed(host, ids)


PASSES = ("locked", "busy", "disk i/o", "unable to open", "readonly", "read-only", "is full")
"""What SQLite says of a database that is in use, or of its disk: no message is at fault."""


async def is_away(host: Host[Any], error: Exception) -> bool:
    """Whether *error* means that a service is away; a database that answers and only rejects a statement is not."""
    if disk.takes_nothing(error):
        return True
    if not isinstance(error, OperationalError):
        return isinstance(error, AWAY)
    if error.connection_invalidated or any(one in str(error.orig).lower() for one in PASSES):
        return True
    try:
        await host.commit(inbox.answers, host.journal)
    except DBAPIError:
        return True
    return False


def _put_off(connection: Connection, host: Host[Any], ids: Sequence[int], until: float) -> None:
    inbox.put_off(connection, host.journal, inbox.unhandled(connection, host.journal, ids), until)


async def failed(host: Host[Any], ids: Sequence[int], flow: str | None = None, why: str = "") -> None:
    """Retry, or give up, the unhandled messages of a failed batch.

    A batch of *flow* that failed without a run gets one afterwards, which says *why*.
    """
    if await host.commit(_failed, host, ids, flow, why):
        await tell(host)


def _failed(connection: Connection, host: Host[Any], ids: Sequence[int], flow: str | None, why: str) -> bool:
    """Whether a message was given up: only one that was alone in its run is."""
    now = time.time()
    given_up = False
    left = inbox.read(connection, host.journal, ids)
    for one in left:
        if len(ids) == 1 and one.tries + 1 >= host.settings.inbox_tries:
            _give_up(connection, host, one, now)
            given_up = True
        else:
            pause_s = PAUSES_S[min(one.tries, len(PAUSES_S) - 1)]
            inbox.failed(connection, host.journal, [one.id], now + pause_s)
    if flow is not None and not given_up:
        for first in range(0, len(left), CLASSES):
            _show(connection, host, left[first : first + CLASSES], flow, why)
    return given_up


def _show(connection: Connection, host: Host[Any], some: Sequence[Kept], flow: str, why: str) -> None:
    """Keep a failed try of *flow* for the recorder: a Retry of its run handles these messages."""
    labels, ids, now = [label_of(one.body) for one in some], inbox.spell([one.id for one in some]), time.time()
    names = [label.class_id or f"inbox {one.id}" for label, one in zip(labels, some, strict=True)]
    said = json.dumps([{"class": name, "decision": FAILED, "detail": why} for name in names])
    work = Work(flow, name_of(flow, labels, len(some)), now, "", {"inbox_ids": ids}, tags_of(labels), why, said)
    inbox.keep_work(connection, host.journal, work, now, host.settings.name if host.settings.shared else None)


def _give_up(connection: Connection, host: Host[Any], one: Kept, now: float) -> None:
    """Give up a message: write a dead letter, an alarm, an event for ``lectern explain``, and a due answer."""
    class_id = label_of(one.body).class_id
    why = f"not handled in {one.tries + 1} runs; see their logs"
    log.error("inbox %d: %s", one.id, why)
    inbox.dead(connection, host.journal, one.id, why, inbox.Handling(now))
    code = errors.NOT_HANDLED if class_id else errors.DEAD_LETTER
    answer = _answer(connection, host, one, class_id, why) if class_id else None
    what = f"{class_id}: " if class_id else ""
    letter = outgoing.dead_letter(host.settings.dead_letter_stream, one.command, one.body, why)
    alarm = host.alarm(code, f"{what}inbox {one.id}: {why}", now, class_id=class_id)
    outbox.put(connection, host.journal, [letter, *([answer] if answer else []), alarm], now)
    noted = Event("given up", class_id, detail=f"{one.command}: {why}")
    events.note(connection, host.journal, host.settings.name, [noted], now)


def _answer(connection: Connection, host: Host[Any], one: Kept, class_id: str, why: str) -> Outgoing | None:
    """The refusal of a given-up message: to the platform for a booking or change, to the teacher for a prepare."""
    code = errors.NOT_HANDLED.number
    if isinstance(host.settings, TeacherSettings):
        if one.command == "change":
            changed = outgoing.change_answer(class_id, code, why)
            return Outgoing(host.settings.change_result_channel, Kind.CHANNEL, changed, class_id)
        if one.command != "order" or class_id in revisions.booked(connection, [class_id]):
            return None
        said = outgoing.answer(class_id, code, why)
        return Outgoing(host.settings.order_result_channel, Kind.CHANNEL, said, class_id)
    if one.command != "prepare" or _is_here(connection, class_id):
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


def _is_here(connection: Connection, class_id: str) -> bool:
    """Whether this streamer has the class; one whose row cannot be read is never aired here, so another may get it."""
    try:
        return class_id in airings.by_id(connection, [class_id])
    except (CallAPerson, ValueError):
        return False
