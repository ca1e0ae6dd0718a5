"""Enforces deadlines, takes up work whose owner is gone, and raises alarms for classes that no streamer has in time."""

import asyncio
import time
from collections.abc import Mapping, Sequence

from prefect import flow
from prefect.client.schemas.objects import State
from sqlalchemy import Connection

from flows.handling import GRACE_S, Swept, apart, changed, decision, sweep_flow
from flows.host import CHECKING, NOWHERE, TeacherHost, current, is_ours, log
from flows.outbox_publisher import publish_outbox
from flows.teacher import transcoding
from lectern import errors, formatting
from lectern.db import bookings, events, transcodings
from lectern.decide import change as decide
from lectern.decide import placement as cancelling
from lectern.decide import readiness, reports
from lectern.decide.readiness import LATE_AFTER_S, LOOK_EVERY_S
from lectern.errors import TryAgain
from lectern.i18n import Text
from lectern.model.facts import Order
from lectern.model.plan import Changes
from lectern.model.tables.teacher import CancelRow, RenditionRow
from lectern.states import BookingState

UNREPORTED_S = 60.0  # least seconds until a class is sent again to a streamer that has reported nothing about it

Begins = tuple[str, float]
"""A class and its start (epoch seconds): one that is moved to another time is checked before that, too."""


@flow(name="sweep teacher", persist_result=False, result_storage=NOWHERE)
async def sweep_teacher(dry_run: bool = False) -> State[None]:
    """Enforce deadlines, send unsent answers again, and take up work whose process has died."""
    return await sweep_flow(current.get(), _sweep, dry_run)


async def _sweep(host: TeacherHost, dry_run: bool) -> Swept:
    now = time.time()
    forgotten: list[RenditionRow] = []
    if not transcoding.requests_wait():
        forgotten = await host.read_tx(transcodings.forgotten_requests, now - GRACE_S, now)
    try:
        settled = await transcoding.time_out(host, dry_run=dry_run)
    except TryAgain as error:
        log.warning("sweep: deadlines wait: %s", error.message)
        settled = []
    lost = await host.read_tx(transcodings.ownerless, now - GRACE_S, now)
    plan = await changed(host, overlooked(time.monotonic() - host.listens_since), dry_run=dry_run)
    if not dry_run:
        await transcoding.start_requests(host, [rendition.key for rendition in forgotten])
        await transcoding.refuse_cancelled(host, lost)
        await transcoding.start_ecs(host, [rendition.key for rendition in lost])  # else it ends what a host has of them
        await transcoding.follow(host, [plan])
        if await host.read_tx(bookings.still_overdue):
            # Nobody looks again before the next sweep.
            host.ongoing[errors.STALE_WAITING.number] = time.monotonic() + host.settings.sweep_interval_s
    done = [*settled, plan]
    written = [row.after or {} for row in plan.rows.values()]
    late, again = (sum(column in columns for columns in written) for column in ("warned_at", "updated_at"))
    outcomes = sum(len(each.table) for each in done)
    summary = f"{outcomes} outcomes, {len(lost)} lost owners, {late} late, {again} told again"
    asked = [f"{rendition.stem}: the OSS is asked" for rendition in forgotten]
    return done, summary, [*asked, *(f"{rendition.stem}: made on ECS" for rendition in lost)]


@decision
def overlooked(connection: Connection, changes: Changes, heard_s: float) -> None:
    """Handle classes and cancels that have been without news for too long; streamers have been heard for *heard_s*."""
    now = changes.now
    reports.warn(changes, bookings.overdue_waiters(connection, now - changes.settings.order_warn_time_out_s))
    silent = bookings.unreported(connection, now - UNREPORTED_S, now)
    noted = events.named(connection, reports.TOLD_AGAIN, [order.class_id for order in silent])
    asked = [order for order in silent if order.state is BookingState.PLACED or order.revises is None]
    reports.resend_ends(changes, asked, noted)
    if revised_ids := [order.revises for order in silent if order.revises is not None]:
        changes.learn(bookings.readable_among(connection, revised_ids))
        changes.learn(bookings.revisions_of(connection, revised_ids))
        decide.apply_again(changes, [order for order in silent if order.revises and order.state is BookingState.READY])
    cancelling.resend_cancels(changes, bookings.cancels_to_resend(connection, now))
    decide.forsake(changes, bookings.forsaken_revisions(connection, now - UNREPORTED_S))
    close(connection, changes, heard_s)


def close(connection: Connection, changes: Changes, heard_s: float) -> None:
    """Close the classes and the cancels of which nothing more is heard, though streamers have been for *heard_s*.

    What they reported while Redis or this teacher was away is on its way.
    """
    now, ends, unconfirmed = changes.now, list[Order](), list[CancelRow]()
    over = bookings.unended(connection, now - GRACE_S)
    if heard_s < reports.UNENDED_S:
        over = [order for order in over if order.promised_at is None]
    if heard_s >= reports.ENDS_AFTER_S:
        ends = bookings.ends_untold(connection, now - reports.BEGAN_WITHIN_S, now - reports.ENDS_AFTER_S)
        unconfirmed = bookings.cancels_without_end(connection, now)
    cancelled = [order.class_id for order in unconfirmed]
    changes.orders |= bookings.readable_among(connection, cancelled)
    parts = events.parts_of(connection, [*cancelled, *(row.class_id for row in (*over, *ends))])
    reports.close_unreported(changes, over, parts)
    reports.tell_ends(changes, ends, parts)
    reports.close_cancels(changes, unconfirmed, parts)


# -- classes that begin soon -------------------------------------------------------------------------------------------
async def teacher_checks(host: TeacherHost) -> None:
    """Check, until cancelled, the classes that no streamer has yet; of several teachers, only one does so."""
    done: dict[Begins, float] = {}
    while True:
        host.watchdog.beat("readiness")
        if await is_ours(host, CHECKING, 3 * LOOK_EVERY_S):
            done = await check_of_teacher(host, done, time.time())
        await asyncio.sleep(LOOK_EVERY_S)


async def check_of_teacher(host: TeacherHost, done: Mapping[Begins, float], now: float) -> dict[Begins, float]:
    """Raise alarms for unready bookings whose check is due; returns the last check of each, to be passed as *done*."""
    times = now - LATE_AFTER_S, now, now + readiness.CHECKS_S[0]
    orders = await host.read_tx(bookings.unready, *times)
    unready = {(order.class_id, order.start_time): order.start_time for order in orders}
    due = readiness.checks_due(unready, now, done)
    if due:
        await apart(host, list(due), lambda batch: _late(batch, times), lambda begins: begins[0])
        await publish_outbox(host)
    done = {key: at for key, at in done.items() if key in unready} | due
    if done:
        host.ongoing[errors.NOT_READY_FOR_START.number] = time.monotonic()
    return done


@decision
def _late(connection: Connection, changes: Changes, due: Sequence[Begins], times: tuple[float, float, float]) -> None:
    """Raise an alarm for each of *due* that is still among the unready of *times*: it may have been ready meanwhile."""
    checked = set(due)
    late = [one for one in bookings.unready(connection, *times) if (one.class_id, one.start_time) in checked]
    waits = any(order.streamer is None for order in late)
    made_at = transcodings.made_at(connection, changes.settings, changes.now) if waits else {}
    for order in late:
        why = Text("it is not made yet")
        if order.streamer:
            why = Text("{streamer} does not have it yet", streamer=order.streamer)
        elif (at := made_at.get(order.stem)) is not None:
            when = formatting.when(at, changes.now)
            why = Text("it is not made yet; by what others took, it will be made at about {when}", when=when)
        sentence = readiness.sentence(order.class_id, order.stem, order.start_time - changes.now, [why])
        log.warning("%s", sentence)
        changes.alarm(errors.NOT_READY_FOR_START, sentence, order)
        changes.announce(order, "not_ready", message=why)
