"""A class goes on air at its second, is resumed at the clock's position, and is released."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from flows import show
from flows.host import NOWHERE, Host, log, streamer
from flows.streamer.pushes import Pushes, Sent
from flows.tell import tell
from lectern import errors
from lectern.decide.broadcast import Over, how_aired, next_push
from lectern.effects.media import whole
from lectern.effects.rows import airings, cache, events, metrics, outbox
from lectern.effects.rows.airings import Airing
from lectern.errors import ErrorCode, LecternError
from lectern.facts import Event
from lectern.messages import Alarm
from lectern.outgoing import Kind, Outgoing
from lectern.settings import StreamerSettings
from lectern.states import AiringState, FileState

Streamer = Host[StreamerSettings]
ALARM_AFTER = 3
"""A class is alarmed while it should be on air, when so many pushes in a row sent nothing."""

LEASE_LOOK_S = 0.25


@flow(name="broadcast", persist_result=False, result_storage=NOWHERE)
async def broadcast(class_id: str, dry_run: bool = False) -> State[None]:
    """Air one class: check, wait for its second, push until its end, release."""
    host = streamer()
    one = (await host.look(airings.by_id, [class_id])).get(class_id)
    on_air = {AiringState.READY, AiringState.ON_AIR, AiringState.BROKEN}
    if one is None or one.state not in on_air or class_id in host.busy | host.guarded.keys():
        return Completed(message=f"nothing to do: {class_id} is {one.state if one else 'not known'}")
    if dry_run:
        return Completed(message=f"dry run: would push {one.stem} at {time.ctime(one.start_time)}")
    try:
        return Completed(message=await air(host, one))
    except LecternError as error:
        return Failed(message=f"{class_id}: {error.message}")


async def air(host: Streamer, one: Airing) -> str:
    """Air one class to its end and release it; returns how it went. Raises LecternError where it can not be aired."""
    host.busy.add(one.class_id)
    if runtime.flow_run.id is not None:
        host.aired_by[one.class_id] = str(runtime.flow_run.id)
    try:
        outcome = await _air(host, one)
    except asyncio.CancelledError:
        # A class that the teacher took back is closed already, and a process that ends leaves the class to the next.
        run_id = host.aired_by.get(one.class_id)
        if run_id is not None and host.runs.was_cancelled(run_id):
            await asyncio.shield(close(host, one, AiringState.CANCELLED, errors.CANCELLED, "cancelled in the UI"))
        raise
    except LecternError as error:
        await close(host, one, AiringState.BROKEN, error.code or errors.AIRING_BROKEN, error.message)
        raise
    finally:
        host.busy.discard(one.class_id)
        host.aired_by.pop(one.class_id, None)
    await close(host, one, AiringState.AIRED, None, outcome)
    return outcome


async def _air(host: Streamer, one: Airing) -> str:
    """Push until nothing is left to push; returns why it ended. Raises LecternError where it can not be aired."""
    row = await _checked(host, one)
    duration_s = row.duration_s if row.duration_s is not None else one.end_time - one.start_time
    sent_s, number, first = 0.0, 0, None
    async with show.Progress(f"broadcast-{one.stem}", f"{one.class_id} on air") as bar:
        pushes = Pushes(one, row, bar, duration_s)
        try:
            while True:
                push = next_push(one.start_time, one.end_time, duration_s, time.time())
                if isinstance(push, Over):
                    if sent_s == 0 or first is None:
                        raise LecternError(f"never on air in {number} pushes: {push.reason}", errors.AIRING_BROKEN)
                    return f"{how_aired(first, sent_s, number)}; {push.reason}"
                if push.at > time.time():
                    await pushes.wait_for(push)
                    continue  # at its second it is decided anew, by the clock
                if not host.fence.held():
                    await asyncio.sleep(LEASE_LOOK_S)
                    continue  # another streamer may have it by now
                number, first = number + 1, first or push
                sent = await _pushed(host, one, pushes.begin(push), is_first=number == 1)
                sent_s += sent.seconds
                if sent.complete or (sent.ran_out and row.duration_s is None):  # nobody knew how long it is
                    bar.set(100)
                    return how_aired(first, sent_s, number)
                if sent.ran_out and (why := await whole.end_trouble(Path(row.site or ""), row)) is not None:
                    raise LecternError(f"{row.site}: {why}; {sent_s:.0f} s were sent", errors.AIRING_BROKEN)
                await _broke_off(host, one, number, sent.seconds, sent_s)
        finally:
            await pushes.close()


async def _pushed(host: Streamer, one: Airing, pushing: "asyncio.Task[Sent]", *, is_first: bool) -> Sent:
    """How a push went that is under way; whoever is cancelled here ends it."""
    try:
        if is_first:  # a disk that is slow to commit delays no class
            await _write_down(host, one, _on_air)
        return await pushing
    finally:
        pushing.cancel()
        await asyncio.wait({pushing})


async def _broke_off(host: Streamer, one: Airing, number: int, more_s: float, sent_s: float) -> None:
    """Say so, cry where nothing was sent in several pushes, and wait for the next one."""
    await _write_down(host, one, _note, "push broke off", f"push {number}, {more_s:.1f} s sent")
    if number == ALARM_AFTER and sent_s == 0 and await _write_down(host, one, _cry):
        await tell(host)
    metrics.RECONNECTS.inc()
    await asyncio.sleep(host.settings.reconnect_after_s)


async def _write_down(host: Streamer, one: Airing, work: Callable[..., None], *details: str) -> bool:
    """Commit what is worth knowing; a disk that takes nothing ends no push."""
    try:
        await host.commit(work, host, one, *details)
    except DBAPIError as error:
        log.error("%s: is not written down, the push goes on: %s", one.class_id, error.orig)
        return False
    return True


async def _checked(host: Streamer, one: Airing) -> cache.Cached:
    """The rendition on the disk; raises LecternError where it is not what the database says."""
    row = (await host.look(cache.by_stem, [one.stem])).get(one.stem)
    if row is None or row.state is not FileState.READY or row.site is None:
        raise LecternError(f"{one.stem} is not in the cache", errors.AIRING_BROKEN)
    path = Path(row.site)
    try:
        size = await asyncio.to_thread(lambda: path.stat().st_size)
    except OSError as error:
        raise LecternError(f"{path}: {error.strerror}", errors.AIRING_BROKEN) from error
    if row.size_bytes and size != row.size_bytes:
        raise LecternError(f"{path} has {size} bytes, not {row.size_bytes}", errors.AIRING_BROKEN)
    return row


def _on_air(connection: Connection, host: Streamer, one: Airing) -> None:
    current = airings.by_id(connection, [one.class_id])[one.class_id]
    airings.move(connection, current, AiringState.ON_AIR, time.time())
    _note(connection, host, one, "on air", one.stem)


def _note(connection: Connection, host: Streamer, one: Airing, what: str, detail: str) -> None:
    events.note(
        connection, host.journal, host.settings.name, [Event(what, one.class_id, one.stem, detail)], time.time()
    )


def _cry(connection: Connection, host: Streamer, one: Airing) -> None:
    """While there is time: the class should be on air, and the platform takes nothing of it."""
    code, now = errors.AIRING_BROKEN, time.time()
    said = f"{one.class_id}: is not on air, {ALARM_AFTER} pushes sent nothing; it is tried again until its end"
    cry = Alarm(
        code=code.number,
        message=said,
        at=now,
        runbook=code.runbook,
        host=host.settings.name,
        class_id=one.class_id,
        record_id=one.record_id,
    )
    outbox.put(connection, host.journal, [host.alarm(cry)], now)
    _note(connection, host, one, "alarm", said)


async def close(host: Streamer, one: Airing, state: AiringState, code: ErrorCode | None, message: str) -> None:
    """Release a class, tell its teacher how it ended."""
    await host.commit(_release, host, one, state, code, message)
    await tell(host)


def _release(
    connection: Connection, host: Streamer, one: Airing, state: AiringState, code: ErrorCode | None, message: str
) -> None:
    """The class is over: its citation is taken back, and the teacher is told, once."""
    current = airings.by_id(connection, [one.class_id])[one.class_id]
    if current.state in {AiringState.AIRED, AiringState.CANCELLED}:
        return  # released meanwhile
    airings.move(connection, current, state, time.time(), code=code, message=message)
    if time.time() >= one.end_time:  # before its end a person may retry a broken one
        airings.give_up(connection, current, time.time())
    said = airings.report("ended", current, host.settings.name, code, message)
    outbox.put(
        connection, host.journal, [Outgoing(host.settings.report_stream, Kind.STREAM, said, one.class_id)], time.time()
    )
    _note(connection, host, one, state, message)


async def close_late(host: Streamer, one: Airing) -> None:
    """Close a class whose end has passed and that nobody airs: its process was not there, or its disk was full."""
    await host.commit(_close_late, host, one.class_id)


def _close_late(connection: Connection, host: Streamer, class_id: str) -> None:
    one, now = airings.by_id(connection, [class_id])[class_id], time.time()
    if one.state is AiringState.WAITING:
        code, why = errors.ENDED, "it ended before its rendition was there"
        airings.move(connection, one, AiringState.REFUSED, now, code=code, message=why)
        said = airings.report("prepared", one, host.settings.name, code, why)
    elif one.state is AiringState.BROKEN:
        airings.give_up(connection, one, now)  # its end was reported before
        return
    else:
        code, why = errors.AIRING_BROKEN, "it was not on air at its end"
        airings.move(connection, one, AiringState.BROKEN, now, code=code, message=why)
        airings.give_up(connection, one, now)
        said = airings.report("ended", one, host.settings.name, code, why)
    outbox.put(connection, host.journal, [Outgoing(host.settings.report_stream, Kind.STREAM, said, class_id)], now)
    _note(connection, host, one, "closed late", why)
