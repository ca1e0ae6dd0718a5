"""Logs the failure of a host's part, which is retried, and raises an alarm for it; what is on air goes on."""

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from redis.exceptions import AuthenticationError, ResponseError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from flows.host import Host, log
from flows.tell import alarm_refusal, tell
from lectern import errors, outgoing
from lectern.effects.files import disk
from lectern.effects.rows import outbox
from lectern.errors import CallAPerson, Caught, ErrorCode, LecternError, TryAgain

AGAIN_AFTER_S = 600.0
"""Seconds until an alarm is raised again for the same trouble."""

ALARMS_KEPT = 200
"""Number of alarms for ALARM_URLS that are kept in memory while the database takes none."""

ALARM_S = 10.0
"""Seconds that an alarm may take to be written down and sent."""

PASSING = (OperationalError, TryAgain, ConnectionError, TimeoutError)
"""Expected errors: a service is away for a while."""


LASTING = (ResponseError, AuthenticationError)
"""Causes of a TryAgain by which Redis refuses a request: if they last, waiting does not help."""


BATCH_WAITS = (TryAgain, DBAPIError)
"""Errors that are no item's own: they would take one item of a batch after the other."""


class MustEnd(CallAPerson):
    """This process cannot go on: another one serves its queue, or its database cannot be written any more."""


async def say(host: Host[Any], what: str, error: BaseException, pause_s: float, *, lasts: bool = False) -> None:
    """Log that *what* failed and is tried again in *pause_s*; raise an alarm for unexpected errors. Raises nothing.

    *lasts*: it has failed for long, so an alarm is raised also for what Redis refuses.
    """
    cause = first(error)
    if disk.takes_nothing(error):
        await _disk(host, what, _said(cause))
    elif isinstance(cause, PASSING):
        log.warning("%s: interrupted, again in %.1f s: %s", what, pause_s, _said(cause))
        if lasts and isinstance(cause.__cause__, LASTING):
            await alarm(host, what, _said(cause))
    else:
        trace = None if isinstance(cause, LecternError) else error
        log.error("%s: does not get on: %s; it is tried again", what, words(cause), exc_info=trace)
        await alarm(host, what, words(cause))


@asynccontextmanager
async def isolated(
    host: Host[Any], what: str, pause_s: float = 0.0, *, through: tuple[type[Exception], ...] = BATCH_WAITS
) -> AsyncIterator[None]:
    """A context for *what*, one item of several: its error goes to `say`, and the next item has its turn.

    Errors of *through* are raised: while Redis or the database is away, all items wait.
    """
    with Caught(*through) as failed:
        yield
    if failed.error is not None:
        await say(host, what, failed.error, pause_s)


async def alarm(host: Host[Any], what: str, why: str) -> None:
    """Raise an alarm that *what* does not work, at most every ten minutes. Raises no error."""
    await raised(host, what, errors.WORK_FAILED, f"{host.settings.name}: {what} does not work: {why}", tell)


async def raised(
    host: Host[Any], what: str, code: ErrorCode, said: str, pass_on: Callable[[Host[Any]], Awaitable[object]]
) -> None:
    """Raise an alarm about *what*, at most every ten minutes, and *pass_on* what the outbox has. Raises no error."""
    if not host.alarmed_at.due(what, AGAIN_AFTER_S):
        return
    with Caught() as failed:
        async with asyncio.timeout(ALARM_S):
            await host.commit(_put, host, code, said)
            host.alarmed_at.passes(what)
            await pass_on(host)
    if failed.error is not None:
        log.error("%s: its alarm is not sent yet: %s", what, words(failed.error))


def _put(connection: Connection, host: Host[Any], code: ErrorCode, said: str) -> None:
    now = time.time()
    outbox.put(connection, host.journal, [host.alarm(code, said, now)], now)


async def _disk(host: Host[Any], what: str, why: str) -> None:
    """Raise an alarm for a disk that cannot be written directly on the channel, not by way of the database."""
    log.error("%s: the disk cannot be written: %s; it is tried again", what, why)
    host.no_room_at = time.monotonic()
    if not host.alarmed_at.due("disk", AGAIN_AFTER_S):
        return
    said = f"{host.settings.name}: the disk cannot be written: {why}"
    made = outgoing.alarm(errors.DISK_FULL, said, time.time(), host.settings.name).to_json()
    if host.alarmed_at.take("disk, people", AGAIN_AFTER_S):  # people need no Redis
        _to_people(host, made)
    try:
        await host.bus.publish_alarm(host.settings.alarm_channel, made)
    except TryAgain as lost:
        log.error("redis: an alarm could not be sent: %s", lost)
        return
    host.alarmed_at.passes("disk")


def _to_people(host: Host[Any], made: str) -> None:
    """Keep an alarm for ALARM_URLS in memory, because the database takes nothing; the newest ones are kept."""
    if not host.settings.alarm_services:
        return
    host.to_people.append(made)
    if len(host.to_people) > ALARMS_KEPT:
        log.error("alarms: too many wait for ALARM_URLS in memory, this one is dropped: %s", host.to_people.popleft())


async def unreadable(host: Host[Any], stream: str, why: str) -> None:
    """Log, and raise an alarm while it lasts, that Redis does not let us read *stream*; the other streams are read."""
    log.error("redis: %s cannot be read, the other streams are: %s", stream, why)
    await host.commit(alarm_refusal, host, f"does not let {stream} be read", stream, why)
    await tell(host)


def words(error: BaseException) -> str:
    """The error, and where it arose; of an unexpected error not the whole text, which may contain payloads."""
    if isinstance(error, LecternError):
        return error.message
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    said = f": {error.orig}" if isinstance(error, DBAPIError) else ""
    where = f" in {ours[-1].name}, line {ours[-1].lineno} of {ours[-1].filename}" if ours else ""
    return f"{type(error).__name__}{where}{said}"


def _said(error: BaseException) -> str:
    return str(error.orig if isinstance(error, DBAPIError) else error) or repr(error)


def first(error: BaseException) -> BaseException:
    """The first error of a group, or the error itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
