"""Deadlines, unsent answers, lost owners: what nobody else does any more."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import httpx
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectException
from prefect.states import Completed
from sqlalchemy import Connection

from flows import artifacts
from flows.host import NOWHERE, Host, log, streamer, teacher, tell
from flows.streamer import broadcast, download
from flows.streamer import prepare as cache
from flows.teacher import attempts, deadlines
from flows.teacher import cancels as cancelling
from flows.teacher.verdicts import Batch, Teacher, refuse, to_streamer
from lectern import errors
from lectern.effects import outgoing
from lectern.effects.rows import airings, bookings, cancels, events, inbox, leases, oss_requests, outbox, renditions
from lectern.effects.rows import cache as rows
from lectern.effects.rows.events import Event
from lectern.errors import TryAgain
from lectern.facts import Idle
from lectern.settings import StreamerSettings, TeacherSettings
from lectern.states import BookingState

S = TypeVar("S", Host[TeacherSettings], Host[StreamerSettings])
GRACE_S = 5.0
"""What is younger is still being done by the run that began it."""

OVER_S = 30.0
"""A class that ended so long ago, and that nobody airs, is closed: its citation is taken back."""

TOLD_AGAIN = "told its streamer again"
"""Noted once a class: a long download would fill its story with it."""

ASKED = 200
"""Number of downloads about which Prefect is asked in a sweep."""

UNREPORTED_S = 60.0
UNENDED_S = 300.0
"""A class that ended so long ago, and of which no streamer said how, was not aired to its end."""


SWEEP = "a sweep"
"""What is busy while one is at work; no class is called so."""


async def due(host: Host[Any]) -> bool:
    """Whether there is anything to sweep, and nobody does: a run that finds nothing would only fill the UI."""
    return SWEEP not in host.busy and await host.commit(_due, host)


def _due(connection: Connection, host: Host[Any]) -> bool:
    now = time.time()
    unsent = outbox.oldest_unsent(connection, host.journal, now)
    if unsent is not None and unsent < now - GRACE_S:
        return True
    if isinstance(host.settings, TeacherSettings):
        return bool(
            renditions.overdue(connection, now)
            or oss_requests.forgotten(connection, now - GRACE_S, now)
            or renditions.ownerless(connection, now - GRACE_S, now)
            or bookings.overdue_waiters(connection, now - host.settings.order_warn_time_out_s)
            or bookings.unreported(connection, now - UNREPORTED_S, now)
            or _unended(connection, now)
            or cancels.untold(connection, now)
        )
    idle = [one for one in rows.downloading(connection, now - GRACE_S) if one.stem not in host.busy]
    late = [one for one in airings.over(connection, now - OVER_S) if one.class_id not in host.busy]
    return bool(idle or late or rows.evicting(connection))


async def _alone(host: S, work: Callable[[S, bool], Awaitable[State[None]]], dry_run: bool) -> State[None]:
    """Sweep, unless another run does: where Prefect is slow they would pile up, and make it slower."""
    if SWEEP in host.busy:
        return Completed(message="another sweep is at work")
    host.busy.add(SWEEP)
    try:
        return await work(host, dry_run)
    finally:
        host.busy.discard(SWEEP)


@flow(name="sweep teacher", persist_result=False, result_storage=NOWHERE)
async def sweep_teacher(dry_run: bool = False) -> State[None]:
    """Enforce deadlines, send again, pick up what lost its owner."""
    return await _alone(teacher(), _sweep_teacher, dry_run)


async def _sweep_teacher(host: Teacher, dry_run: bool) -> State[None]:
    now = time.time()
    late, silent = await host.commit(_late, host, now)
    forgotten = await host.commit(oss_requests.forgotten, now - GRACE_S, now)
    if dry_run:
        return Completed(message=f"dry run: {len(late)} late, {len(silent)} unreported, {len(forgotten)} not asked for")
    try:
        batch = await deadlines.time_out(host)
    except TryAgain as error:
        log.warning("sweep: deadlines wait: %s", error.message)
        batch = Batch()
    await attempts.start_requests(host, [one.key for one in forgotten])
    lost = await host.commit(renditions.ownerless, now - GRACE_S, now)
    await attempts.start_ecs(host, [one.key for one in lost])
    await host.commit(_warn, host, late)
    await host.commit(_tell_again, host, silent)
    await host.commit(_cancel_again, host)
    await host.commit(_close, host, batch)
    await host.commit(_prune, host)
    sent = await tell(host)
    await artifacts.table("sweep-batch", batch.table, "What passed its deadline")
    done = f"{len(batch.table)} outcomes, {len(lost)} lost owners, {len(late)} late, {len(silent)} told again"
    return Completed(message=done if sent else f"{done}; Redis is away")


def _late(connection: Connection, host: Teacher, now: float) -> tuple[list[bookings.Order], list[bookings.Order]]:
    late = bookings.overdue_waiters(connection, now - host.settings.order_warn_time_out_s)
    return late, bookings.unreported(connection, now - UNREPORTED_S, now)


def _warn(connection: Connection, host: Teacher, late: list[bookings.Order]) -> None:
    now = time.time()
    for order in late:
        span = outgoing.span(host.settings.order_warn_time_out_s)
        said = f"{order.class_id} has waited for {order.stem} for more than {span}"
        cry = outgoing.alarm(
            errors.STALE_WAITING,
            said,
            now,
            host.settings.name,
            class_id=order.class_id,
            record_id=order.record_id,
            resolution=order.resolution,
        )
        outbox.put(connection, host.journal, [host.alarm(cry)], now)
    bookings.warned(connection, [order.class_id for order in late], now)


def _tell_again(connection: Connection, host: Teacher, silent: list[bookings.Order]) -> None:
    now = time.time()
    for order in silent:
        prepare = outgoing.prepare(order.payload, order.url or "", order.placement)
        outbox.put(connection, host.journal, [to_streamer(host, order.streamer or "", prepare, order.class_id)], now)
    known = events.known(connection, host.journal, TOLD_AGAIN, [order.class_id for order in silent])
    told = [Event(TOLD_AGAIN, order.class_id, order.stem) for order in silent if order.class_id not in known]
    events.note(connection, host.journal, host.settings.name, told, now)
    bookings.touch(connection, [order.class_id for order in silent], now)


def _cancel_again(connection: Connection, host: Teacher) -> None:
    now = time.time()
    cancelling.tell_again(connection, host, cancels.untold(connection, now), now)


def _unended(connection: Connection, now: float) -> list[bookings.Order]:
    over = bookings.unended(connection, now - GRACE_S)
    return [one for one in over if one.promised_at is None or one.end_time < now - UNENDED_S]


def _close(connection: Connection, host: Teacher, batch: Batch) -> None:
    """Classes whose time is over, and whose streamer never said a word, or not the last one."""
    now = time.time()
    for order in _unended(connection, now):
        if order.promised_at is None:
            why = f"{order.streamer} did not say in time that it is ready"
            refuse(connection, host, order, errors.ENDED, why, batch, now, alarm=True)
            continue
        code, why = errors.AIRING_BROKEN, f"{order.streamer} never said how it ended"
        bookings.close(connection, order, BookingState.BROKEN, now, code=code.number, message=why)
        said = f"{order.class_id}: {why}"
        cry = outgoing.alarm(code, said, now, host.settings.name, class_id=order.class_id, record_id=order.record_id)
        outbox.put(connection, host.journal, [host.alarm(cry)], now)
        broken = Event(BookingState.BROKEN, order.class_id, order.stem, why)
        events.note(connection, host.journal, host.settings.name, [broken], now)
        batch.row(order.class_id, BookingState.BROKEN, where=order.streamer or "", code=code.number, detail=why)


def _prune(connection: Connection, host: Host[Any]) -> None:
    before = time.time() - host.settings.keep_messages_s
    inbox.prune(connection, host.journal, before)
    outbox.prune(connection, host.journal, before)
    events.prune(connection, host.journal, before)
    if isinstance(host.settings, TeacherSettings):
        leases.prune(connection, before)
        cancels.prune(connection, time.time())


@flow(name="sweep streamer", persist_result=False, result_storage=NOWHERE)
async def sweep_streamer(dry_run: bool = False) -> State[None]:
    """Send reports again, take up downloads and evictions that nobody does."""
    return await _alone(streamer(), _sweep_streamer, dry_run)


async def _sweep_streamer(host: Host[StreamerSettings], dry_run: bool) -> State[None]:
    left = await host.commit(_left, host)
    if dry_run:
        return Completed(message=f"dry run: {left.words()}")
    await cache.remove_files(host, left.evicting)
    for stem in left.downloads.keys() - await _cancelled(host, left.downloads):
        await download.start(host, stem)
    for one in left.over:
        await broadcast.close_late(host, one)
    await host.commit(_prune, host)
    sent = await tell(host)
    return Completed(message=left.words() if sent else f"{left.words()}; Redis is away")


async def _cancelled(host: Host[StreamerSettings], downloads: Mapping[str, str | None]) -> set[str]:
    """Give up the downloads whose runs a person cancelled while no process was at them; returns their stems.

    Where Prefect cannot be asked, none is known to be cancelled.
    """
    by_run = {run_id: stem for stem, run_id in downloads.items() if run_id is not None}
    try:
        found = await host.runs.cancelled(list(by_run)[:ASKED]) if by_run else []
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("prefect: can not ask for cancelled downloads: %r", error)
        return set()
    for run_id in found:
        await download.give_up(host, by_run[run_id], download.cancelled(by_run[run_id]))
    return {by_run[run_id] for run_id in found}


class _Left:
    def __init__(self, evicting: list[Idle], downloads: dict[str, str | None], over: list[airings.Airing]) -> None:
        self.evicting, self.downloads, self.over = evicting, downloads, over

    def words(self) -> str:
        return f"{len(self.evicting)} evictions, {len(self.downloads)} downloads, {len(self.over)} past their end"


def _left(connection: Connection, host: Host[StreamerSettings]) -> _Left:
    before = time.time() - GRACE_S
    return _Left(
        [Idle(one.stem, one.size_bytes) for one in rows.evicting(connection)],
        {one.stem: one.run_id for one in rows.downloading(connection, before) if one.stem not in host.busy},
        [one for one in airings.over(connection, time.time() - OVER_S) if one.class_id not in host.busy],
    )
