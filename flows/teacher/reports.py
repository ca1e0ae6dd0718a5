"""Handles the streamers' reports: answers bookings of prepared classes, and closes aired classes."""

from collections.abc import Mapping, Sequence
from functools import partial

from prefect import flow
from prefect.client.schemas.objects import State
from sqlalchemy import Connection

from flows.handling import ended, handled, printed, read
from flows.host import NOWHERE, teacher
from flows.teacher.living import living, put_back
from flows.teacher.moves import STAY_S
from flows.tell import tell
from lectern.changes import Changes
from lectern.decide import reports as decide
from lectern.decide.backups import twin_id
from lectern.decide.verdicts import Choice
from lectern.effects.rows import bookings, cancels, inbox, leases, revisions
from lectern.errors import TryAgain
from lectern.messages import Report


@flow(name="report", persist_result=False, result_storage=NOWHERE)
async def report(inbox_ids: str, dry_run: bool = False) -> State[None]:
    """Answer the bookings that a streamer has prepared or could not, and close those that were aired."""
    host, ids = teacher(), inbox.ids_of(inbox_ids)
    try:
        alive = await living(host)
    except TryAgain as error:
        return await put_back(host, ids, error, dry_run=dry_run)
    found = await handled(host, await read(host, ids, (Report,)), partial(decided, alive), dry_run=dry_run)
    if dry_run:
        return await printed("report", found.done)
    await tell(host)
    return await ended("report", found, "What the streamers reported", len(ids))


def decided(alive: Sequence[str], connection: Connection, changes: Changes, reports: Sequence[Report]) -> None:
    """Decide what follows from reports; the streamers *alive* can take classes."""
    facts = decide.NO_FACTS
    if not decide.are_plain(reports):
        ids = [said.class_id for said in reports]
        its = [one.revises for one in changes.orders.values() if one.revises is not None]
        changes.learn(bookings.by_id(connection, list({*its, *map(twin_id, its), *map(twin_id, ids)})))
        changes.learn(revisions.of(connection, its))
        loads = bookings.loads(connection, alive, changes.now)
        no = leases.refused_by(connection, ids)
        choice = Choice(loads, no, _back(connection, changes, no))
        facts = decide.Facts(choice, cancels.unconfirmed(connection, ids))
    for said in reports:
        decide.take(changes, said, facts)


def _back(connection: Connection, changes: Changes, no: Mapping[str, set[str]]) -> dict[str, str]:
    """The streamer from which each class was moved, if it can have the class back: it has not refused it.

    It is drained, but there; or it is lost, and has time to come back.
    """
    found: dict[str, str] = {}
    before = leases.moved_from(connection, list(no))
    holders = leases.holders(connection) if before else {}
    for class_id, name in before.items():
        order, holder = changes.orders.get(class_id), holders.get(name)
        if order is None or holder is None or holder.withdrawn_at is not None or name in no[class_id]:
            continue
        is_there = holder.session is not None and holder.lost_at is None
        if is_there or (holder.lease_s and order.start_time >= changes.now + STAY_S):
            found[class_id] = name
    return found
