"""What follows a failure: messages are redelivered, then dead-lettered; people get an alarm."""

import asyncio
import json
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import stamina
from prefect.client.schemas.objects import FlowRun, State
from redis.exceptions import AuthenticationError, ResponseError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from flows.host import Host, log
from flows.outbox_publisher import alarm_refusal, publish_outbox, refusal_alarmed
from lectern import errors
from lectern.db import airings, bookings, inbox, outbox
from lectern.db.writer import write
from lectern.errors import CallAPerson, Caught, ErrorCode, LecternError, Misuse, TryAgain
from lectern.i18n import Text, labelled, msgid
from lectern.model.facts import InboxMessage, UnrecordedWork
from lectern.model.plan import Changes
from lectern.model.streamer_plan import StreamerChanges
from lectern.run_records import CLASSES, FAILED, label_of, name_of, tags_of
from lectern.storage import disk
from lectern.timing import FIRST_S, MOST_S
from lectern.wire import outgoing
from lectern.wire.fields import is_count
from lectern.wire.parser import fields_of

AGAIN_AFTER_S = 600.0  # most seconds until an alarm is raised again for the same trouble
ALARMS_KEPT = 200  # number of alarms for ALARM_URLS that are kept in memory while the database takes none
ALARM_S = 10.0  # seconds that an alarm may take to be written down and sent
DOES_NOT_WORK = msgid("{host}: {part} does not work: {why}")
PASSING = (OperationalError, TryAgain, ConnectionError, TimeoutError)  # expected errors: a service is away for a while
LASTING = (ResponseError, AuthenticationError)
"""Causes of a TryAgain by which Redis refuses a request: if they last, waiting does not help."""

BATCH_WAITS = (TryAgain, DBAPIError)
"""Errors that are no item's own: they would take one item of a batch after the other."""


class FatalError(CallAPerson):
    """This process cannot go on: another one serves its queue, or its database cannot be written any more."""


async def report(host: Host[Any], what: str, error: BaseException, pause_s: float, *, lasts: bool = False) -> None:
    """Log that *what* failed and is retried in *pause_s*; raise an alarm for unexpected errors. Raises nothing.

    *lasts*: it has failed for long, so an alarm is raised also for a database that is away, and for what Redis refuses.
    """
    cause = first(error)
    if disk.takes_nothing(error):
        await _disk(host, what, _said(cause))
    elif isinstance(cause, PASSING):
        log.warning("%s: interrupted, again in %.1f s: %s", what, pause_s, _said(cause))
        if lasts and isinstance(cause, OperationalError):
            said = Text(DOES_NOT_WORK, host=host.settings.name, part=what, why=_said(cause))
            await _past_database(host, "database", errors.WORK_FAILED, said)
        elif lasts and isinstance(cause.__cause__, LASTING):
            await alarm(host, what, _said(cause))
    else:
        trace = None if isinstance(cause, LecternError) else error
        log.error("%s: does not get on: %s; it is tried again", what, words(cause), exc_info=trace)
        await alarm(host, what, words(cause))


@asynccontextmanager
async def isolated(
    host: Host[Any], what: str, pause_s: float = 0.0, *, through: tuple[type[Exception], ...] = BATCH_WAITS
) -> AsyncIterator[None]:
    """A context for *what*, one item of several: `report` gets its error, and the next item has its turn.

    Errors of *through* are raised: while Redis or the database is away, all items wait.
    """
    with Caught(*through) as failed:
        yield
    if failed.error is not None:
        await report(host, what, failed.error, pause_s)


async def alarm(host: Host[Any], what: str, why: str) -> None:
    """Raise an alarm that *what* does not work, unless it was raised lately. Raises no error."""
    said = Text(DOES_NOT_WORK, host=host.settings.name, part=what, why=why)
    await raised(host, what, errors.WORK_FAILED, said, publish_outbox)


async def raised(
    host: Host[Any], what: str, code: ErrorCode, said: str, pass_on: Callable[[Host[Any]], Awaitable[object]]
) -> None:
    """Raise an alarm about *what*, and *pass_on* what the outbox has, unless it was raised lately. Raises no error.

    When the incident of the alarm before may have been resolved, the same trouble is news.
    """
    if not host.alarmed_at.due(what, min(AGAIN_AFTER_S, host.settings.alarm_quiet_s)):
        return
    with Caught() as failed:
        async with asyncio.timeout(ALARM_S):
            now = time.time()
            await host.write_tx(outbox.put, [host.alarm(code, said, now)], now)
            host.alarmed_at.passes(what)
            await pass_on(host)
    if failed.error is not None:
        log.error("%s: its alarm is not sent yet: %s", what, words(failed.error))


async def _disk(host: Host[Any], what: str, why: str) -> None:
    log.error("%s: the disk cannot be written: %s; it is tried again", what, why)
    host.no_room_at = time.monotonic()
    said = Text("{host}: the disk cannot be written: {why}", host=host.settings.name, why=why)
    await _past_database(host, "disk", errors.DISK_FULL, said)


async def _past_database(host: Host[Any], what: str, code: ErrorCode, said: str) -> None:
    """Raise an alarm directly on the channel and for people, because the database can keep none; not so soon again."""
    if not host.alarmed_at.due(what, AGAIN_AFTER_S):
        return
    made = outgoing.alarm(code, said, time.time(), host.settings.name).to_json()
    if host.settings.alarm_services and host.alarmed_at.take(f"{what}, people", AGAIN_AFTER_S):  # people need no Redis
        host.to_people.append(made)  # in memory, because the database takes nothing
        if len(host.to_people) > ALARMS_KEPT:
            log.error(
                "alarms: too many wait for ALARM_URLS in memory, this one is dropped: %s", host.to_people.popleft()
            )
    try:
        await host.bus.publish_alarm(host.settings.alarm_channel, made)
    except TryAgain as lost:
        log.error("redis: an alarm could not be sent: %s", lost)
        return
    host.alarmed_at.passes(what)


async def refused_stream(host: Host[Any], stream: str, said: str) -> None:
    """Log, and raise an alarm while it lasts, what Redis does not let us do with *stream*; the others are served."""
    log.error("redis: the other streams are served: %s", said)
    await host.write_tx(alarm_refusal, host, said, stream)
    refusal_alarmed(host, stream)
    await publish_outbox(host)


def words(error: BaseException) -> str:
    """The error, and where it arose; of an unexpected error not the whole text, which may contain payloads."""
    if isinstance(error, LecternError):
        return error.message
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    said = f": {error.orig}" if isinstance(error, DBAPIError) else ""
    if not ours:
        return f"{type(error).__name__}{said}"
    at = {"name": ours[-1].name, "line": ours[-1].lineno, "file": ours[-1].filename}
    return Text("{error} in {name}, line {line} of {file}{said}", error=type(error).__name__, said=said, **at)


def _said(error: BaseException) -> str:
    return str(error.orig if isinstance(error, DBAPIError) else error) or repr(error)


def first(error: BaseException) -> BaseException:
    """The first error of a group, or the error itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


BACKOFF_S = (1.0, 3.0, 8.0, 20.0)  # seconds until a message is retried after 1, 2, 3 and 4 failures
AGAIN_S = 2.0
AWAY_S = 5.0
"""Seconds until messages are retried after the database, Redis or Prefect was away (TryAgain, and other errors)."""

RELEASE_ATTEMPTS = 8
"""Number of tries to put messages back, within half a minute; afterwards their lease expires soon anyway."""


async def after_failure(
    host: Host[Any], ids: Sequence[int], error: Exception, *, passes: bool, flow: str | None = None
) -> None:
    """Put back the messages among *ids* that are not handled; counts a failure of *flow* unless it *passes*."""
    if not passes:
        await failed(host, ids, flow, words(error))
        return
    pause_s = AGAIN_S if isinstance(error, TryAgain) else AWAY_S
    again = stamina.AsyncRetryingCaller(RELEASE_ATTEMPTS, timeout=None, wait_initial=FIRST_S, wait_max=MOST_S)
    until = time.time() + pause_s
    await again(OperationalError, host.write_tx, lambda rows: inbox.put_off(rows, inbox.unhandled(rows, ids), until))


async def after_run(host: Host[Any], run: FlowRun, task: "asyncio.Task[State[Any] | None]") -> None:
    """Count the failures of a run that somebody began in the UI."""
    text = run.parameters.get("inbox_ids")
    if not isinstance(text, str) or run.parameters.get("dry_run") or task.cancelled():
        return
    try:
        ids = inbox.parse_id_ranges(text)
    except Misuse:  # a person typed it, and the run says so
        return
    error, state = task.exception(), None if task.exception() else task.result()
    is_bad = error is not None or (state is not None and (state.is_failed() or state.is_crashed()))
    found = error if error is not None else getattr(state.data, "result", state.data) if state else None
    async with isolated(host, Text("the messages of {run}", run=run.name), through=()):  # its place must be free again
        if is_bad and isinstance(found, Exception):
            await after_failure(host, ids, found, passes=await is_away(host, found))
        elif is_bad:
            await failed(host, ids)


PASSES = ("locked", "busy", "disk i/o", "unable to open", "readonly", "read-only", "is full")
"""What SQLite says of a database that is in use, or of its disk: no message is at fault."""


async def is_away(host: Host[Any], error: Exception) -> bool:
    """Whether *error* means that a service is away; a database that answers and only rejects a statement is not."""
    if disk.takes_nothing(error):
        return True
    if not isinstance(error, OperationalError):
        return isinstance(error, PASSING)
    if error.connection_invalidated or any(one in str(error.orig).lower() for one in PASSES):
        return True
    try:
        await host.write_tx(inbox.answers)
    except DBAPIError:
        return True
    return False


async def failed(host: Host[Any], ids: Sequence[int], flow: str | None = None, why: str = "") -> None:
    """Retry, or give up, the unhandled messages of a failed batch.

    A batch of *flow* that failed without a run gets one afterwards, which says *why*.
    """
    if await host.write_tx(_failed, host, ids, flow, why):
        await publish_outbox(host)


def _failed(connection: Connection, host: Host[Any], ids: Sequence[int], flow: str | None, why: str) -> bool:
    """Whether a message was given up: only one that was alone in its run is."""
    now = time.time()
    given_up = False
    left = inbox.read(connection, ids)
    for one in left:
        if len(ids) == 1 and one.tries + 1 >= host.settings.inbox_max_attempts:
            _give_up(connection, host, one)
            given_up = True
        else:
            pause_s = BACKOFF_S[min(one.tries, len(BACKOFF_S) - 1)]
            inbox.failed(connection, [one.id], now + pause_s)
    if flow is not None and not given_up:
        for first in range(0, len(left), CLASSES):
            _show(connection, host, left[first : first + CLASSES], flow, why)
    return given_up


def _show(connection: Connection, host: Host[Any], some: Sequence[InboxMessage], flow: str, why: str) -> None:
    """Keep a failed try of *flow* for the recorder: a Retry of its run handles these messages."""
    labels, now = [label_of(one.body) for one in some], time.time()
    name, ids = name_of(flow, labels, len(some)), inbox.format_id_ranges([one.id for one in some])
    classes = [label.class_id or f"inbox {one.id}" for label, one in zip(labels, some, strict=True)]
    said = json.dumps([{"class": class_id, "decision": FAILED, "detail": why} for class_id in classes])
    work = UnrecordedWork(flow, name, now, "", {"inbox_ids": ids}, tags_of(labels), why, said)
    inbox.keep_work(connection, work, now, host.settings.name if host.settings.shared else None)


def _give_up(connection: Connection, host: Host[Any], one: InboxMessage) -> None:
    """Give up a message: write a dead letter, an alarm, an event for ``lectern explain``, and a due answer."""
    class_id = label_of(one.body).class_id
    why = Text("not handled in {tries} runs; see their logs", tries=one.tries + 1)
    log.error("inbox %d: %s", one.id, why)
    said = Text("inbox {number}: {why}", number=one.id, why=why)
    changes = host.changes()
    changes.dead[one.id] = why
    changes.sends.append(outgoing.dead_letter(host.settings.dead_letter_stream, one.command, one.body, why))
    if class_id is not None:
        _answer(connection, changes, one, class_id, why)
        changes.raise_alarm(errors.NOT_HANDLED, labelled(class_id, said), class_id=class_id)
    else:
        changes.raise_alarm(errors.DEAD_LETTER, said)
    changes.note("given up", detail=labelled(one.command, why), class_id=class_id)
    write(connection, changes)


def _answer(
    connection: Connection, changes: Changes | StreamerChanges, one: InboxMessage, class_id: str, why: str
) -> None:
    """Refuse a given-up message: a booking, a change or a cancel to the platform, a prepare to the teacher."""
    code = errors.NOT_HANDLED
    if isinstance(changes, StreamerChanges):
        if one.command != "prepare":
            return
        with suppress(CallAPerson, ValueError):  # whose row cannot be read is never aired here, so another may get it
            if class_id in airings.by_id(connection, [class_id]):
                return
        placement = fields_of(one.body).get("placement", 1)
        changes.report_as("prepared", class_id, placement if is_count(placement) else 1, (code, why))
    elif one.command == "change":
        changes.answer_change(class_id, code.number, why)
    elif one.command == "cancel":
        changes.answer_cancel(class_id, code.number, why)
    elif one.command == "order" and class_id not in bookings.booked_among(connection, [class_id]):
        changes.answer_class(class_id, code.number, why)
