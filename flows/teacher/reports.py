"""Handles the streamers' reports: answers bookings of prepared classes, and closes aired classes."""

from collections.abc import Sequence
from functools import partial

from prefect import flow
from prefect.client.schemas.objects import State
from sqlalchemy import Connection

from flows.handling import Batch, batch_flow, read
from flows.host import NOWHERE, teacher
from flows.outbox_publisher import publish_outbox
from flows.teacher.membership import alive_streamers
from lectern.db import bookings, events, leases
from lectern.decide import leases as decide_leases
from lectern.decide import reports as decide
from lectern.decide.placement import Choice, secondary_id
from lectern.model.plan import Changes
from lectern.model.tables import teacher as teacher_tables
from lectern.wire.messages import AiringReport, Report


@flow(name="report", persist_result=False, result_storage=NOWHERE)
async def report(inbox_ids: str, dry_run: bool = False) -> State[None]:
    """Answer the bookings that a streamer has prepared or could not, and close those that were aired."""
    batch: Batch[Report | AiringReport] = await read(teacher(), inbox_ids, (Report, AiringReport), dry_run=dry_run)
    go = partial(decided, await alive_streamers(batch.host))
    return await batch_flow("report", batch, go, lambda host, _: publish_outbox(host), "What the streamers reported")


def decided(
    alive: Sequence[str], connection: Connection, changes: Changes, messages: Sequence[Report | AiringReport]
) -> None:
    """Decide what follows from reports; the streamers *alive* can take classes."""
    facts = decide.NO_FACTS
    reports = [message for message in messages if isinstance(message, Report)]
    if not decide.are_plain(reports):
        ids = [report.class_id for report in reports]
        revised_ids = [order.revises for order in changes.orders.values() if order.revises is not None]
        changes.learn(
            bookings.by_id(connection, list({*revised_ids, *map(secondary_id, revised_ids), *map(secondary_id, ids)}))
        )
        changes.learn(bookings.revisions_of(connection, revised_ids))
        loads = bookings.loads(connection, alive, changes.now)
        no = leases.refused_by(connection, ids)
        before = leases.moved_from(connection, list(no))
        back = decide_leases.came_back(changes, before, leases.holders(connection) if before else {}, no)
        choice = Choice(loads, no, back)
        over = [report.class_id for report in reports if (report.cmd, report.result) != ("prepared", "success")]
        parts = events.parts_of(connection, over)
        moved = events.named(connection, teacher_tables.journal, "moved", over)
        facts = decide.ReportFacts(choice, bookings.unconfirmed_cancels(connection, ids), parts, moved)
    for message in messages:
        if isinstance(message, Report):
            decide.take(changes, message, facts)
        else:
            decide.aired(changes, message)
