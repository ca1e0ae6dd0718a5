"""Decides bookings, cancels, changes of booked classes, also of those on air, and what the streamers report of them."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from pydantic import ValidationError
from sqlalchemy import Connection

from flows.failures import AGAIN_S
from flows.handling import Batch, Delivery, batch_flow, changed, ended, handled, put_off, read
from flows.host import NOWHERE, TeacherHost, current
from flows.teacher.membership import alive_streamers
from flows.teacher.transcoding import follow
from lectern.db import bookings, events, inbox, leases, transcodings
from lectern.decide import booking as decide_booking
from lectern.decide import change as decide_change
from lectern.decide import leases as decide_leases
from lectern.decide import reports as decide_reports
from lectern.decide.placement import Choice, secondary_id
from lectern.errors import Misuse, Refuse
from lectern.model.plan import Changes
from lectern.wire.messages import AiringReport, Booking, Cancel, Change, Report
from lectern.wire.parser import in_words

Asked = Booking | Cancel
"""The messages that this flow handles."""


@flow(name="booking", persist_result=False, result_storage=NOWHERE)
async def booking(inbox_ids: str, dry_run: bool = False) -> State[None]:
    """Decide the bookings and cancels of *inbox_ids*; those handled already are passed over."""
    batch: Batch[Asked] = await read(current.get(), inbox_ids, (Booking, Cancel), dry_run=dry_run)
    alive = await alive_streamers(batch.host)
    return await batch_flow("booking", batch, partial(decided_bookings, alive), follow, "What became of each booking")


def decided_bookings(alive: Sequence[str], connection: Connection, changes: Changes, messages: Sequence[Asked]) -> None:
    """Decide bookings and cancels; the streamers *alive* can take classes."""
    booked = [message for message in messages if isinstance(message, Booking)]
    cancelled = [message for message in messages if isinstance(message, Cancel)]
    facts = bookings.facts(connection, changes, booked, alive)
    if class_ids := [cancel.class_id for cancel in cancelled]:
        changes.learn(bookings.by_id(connection, [*map(secondary_id, class_ids)]))
        changes.learn(bookings.revisions_of(connection, list(changes.orders)))
        ends = events.ends(connection, class_ids, changes.settings.cancel_result_channel)
        unconfirmed = {class_id for class_id, _ in bookings.unconfirmed_cancels(connection, class_ids)}
        facts = replace(facts, ends=ends, unconfirmed=unconfirmed)
    decide_booking.decide_orders(changes, booked, cancelled, facts)


BOOKING_S = 10.0
"""Seconds for which a change of an unknown class waits for its booking, which may come by the other way.

The cancel of an unknown class waits longer, because nobody waits for its answer."""


@flow(name="change", persist_result=False, result_storage=NOWHERE)
async def change(
    inbox_ids: str = "",
    class_id: str = "",
    start_time: float | None = None,
    end_time: float | None = None,
    dry_run: bool = False,
) -> State[None]:
    """Change booked classes, as the messages of *inbox_ids* ask, or the times of one class by hand.

    Push URLs and recordings are changed by ``lectern change``: a parameter of a run is no place for a secret.
    """
    host: TeacherHost = current.get()
    by_hand: list[Change] = []
    if class_id:
        try:
            by_hand = [Change(class_id=class_id, start_time=start_time, end_time=end_time, by=_author())]
        except ValidationError as error:
            raise Misuse(in_words(error)) from error
    batch = await read(host, inbox_ids, (Change,), dry_run=dry_run)
    go = partial(decided_changes, await alive_streamers(host))
    why = "the bookings of their classes are not here, or not handled yet"
    batch = await put_off(batch, await host.read_tx(early_changes, batch.came), AGAIN_S, why)
    result = await handled(host, batch.came, go, dry_run=dry_run)
    if by_hand:
        result.done.append(await changed(host, lambda c, changes: go(c, changes, by_hand), dry_run=dry_run))
    if not dry_run:
        await follow(host, result.done)
    return await ended("change", batch, result, "What became of each change")


def early_changes(connection: Connection, came: Sequence[Delivery[Change]]) -> list[int]:
    """The messages whose class is not known yet: its booking is in the inbox, or may still come by another way.

    Also those behind an earlier change of their class that is not handled yet: the last one is to hold.
    """
    asked = {delivery.kept.id: delivery.message.class_id for delivery in came if isinstance(delivery.message, Change)}
    behind = bookings.changes_before(connection, asked)
    booked = bookings.booked_among(connection, list(asked.values()))
    unknown = {id_: class_id for id_, class_id in asked.items() if class_id not in booked}
    coming = inbox.coming(connection, "order", set(unknown.values()))
    young = inbox.young(connection, list(unknown), time.time(), BOOKING_S)
    early = {id_ for id_, class_id in unknown.items() if class_id in coming or id_ in young}
    return [id_ for id_ in asked if id_ in early or id_ in behind]


def _author() -> str:
    """Who began this run in Prefect's UI, if Prefect knows its users."""
    context = FlowRunContext.get()
    creator = context.flow_run.created_by if context is not None and context.flow_run is not None else None
    return (creator.display_value if creator is not None else None) or "Prefect"


def decided_changes(alive: Sequence[str], connection: Connection, changes: Changes, asked: Sequence[Change]) -> None:
    """Decide changes of classes; the streamers *alive* can take classes."""
    known = facts(connection, changes, asked, alive)
    changed_before: set[str] = set()
    for message in asked:
        if message.class_id in changed_before:  # with the change before it, it may name what nobody looked for yet
            more = facts(connection, changes, [message], alive)
            known = replace(known, renditions=more.renditions | known.renditions, taken=more.taken | known.taken)
        changed_before.add(message.class_id)
        decide_change.decide(changes, message, known)


def facts(
    connection: Connection, changes: Changes, asked: Sequence[Change], alive: Sequence[str]
) -> decide_booking.BookingFacts:
    """What the database says of the classes that are to be changed, and of what they shall be."""
    ids = [message.class_id for message in asked]
    both = [*ids, *map(secondary_id, ids)]
    changes.learn(bookings.by_id(connection, both))
    changes.learn(bookings.revisions_of(connection, both))
    wanted: list[Booking] = []
    for each in asked:
        with suppress(Refuse):  # the decision refuses it, too
            wanted.append(decide_change.wanted(changes, each)[1])
    keys = {booking.key for booking in wanted if booking.key is not None}
    return decide_booking.BookingFacts(
        renditions=transcodings.states(connection, keys),
        taken=bookings.taken(connection, wanted, changes.now),
        loads=bookings.loads(connection, changes.now, alive),
    )


@flow(name="report", persist_result=False, result_storage=NOWHERE)
async def report(inbox_ids: str, dry_run: bool = False) -> State[None]:
    """Answer the bookings that a streamer has prepared or could not, and close those that were aired."""
    batch: Batch[Report | AiringReport] = await read(current.get(), inbox_ids, (Report, AiringReport), dry_run=dry_run)
    go = partial(decided_reports, await alive_streamers(batch.host))
    return await batch_flow("report", batch, go, follow, "What the streamers reported")


def decided_reports(
    alive: Sequence[str], connection: Connection, changes: Changes, messages: Sequence[Report | AiringReport]
) -> None:
    """Decide what follows from reports; the streamers *alive* can take classes."""
    facts = decide_reports.NO_FACTS
    reports = [message for message in messages if isinstance(message, Report)]
    if not all(map(decide_reports.is_plain, reports)):
        ids = [report.class_id for report in reports]
        revised_ids = [order.revises for order in changes.orders.values() if order.revises is not None]
        both = [*revised_ids, *map(secondary_id, revised_ids)]
        changes.learn(bookings.by_id(connection, list({*both, *map(secondary_id, ids)})))
        changes.learn(bookings.revisions_of(connection, both))
        loads = bookings.loads(connection, changes.now, alive)
        no = leases.refused_by(connection, ids)
        before = leases.moved_from(connection, list(no))
        back = decide_leases.came_back(changes, before, leases.holders(connection) if before else {}, no)
        choice = Choice(loads, no, back)
        over = [report.class_id for report in reports if (report.cmd, report.result) != ("prepared", "success")]
        parts = events.parts_of(connection, over)
        moved = events.named(connection, "moved", over)
        facts = decide_reports.ReportFacts(choice, bookings.unconfirmed_cancels(connection, ids), parts, moved)
    for message in messages:
        if isinstance(message, Report):
            decide_reports.take(changes, message, facts)
        else:
            decide_reports.aired(changes, message)
