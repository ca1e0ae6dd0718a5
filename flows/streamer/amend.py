"""Applies the teacher's changes to classes, and tells the teacher when they are aired so, in the same session."""

from collections.abc import Mapping, Sequence

from prefect import flow
from prefect.client.schemas.objects import State
from sqlalchemy import Connection

from flows.failures import AGAIN_S
from flows.handling import Delivery, batch_flow, changed, decision, put_off, read
from flows.host import NOWHERE, StreamerHost, current
from flows.outbox_publisher import publish_outbox
from flows.playout_link import ScheduledClass
from flows.prefect_api import best_effort
from flows.streamer.playout_events import scheduled
from flows.streamer.playout_sync import AHEAD_S
from lectern.db import airings, inbox
from lectern.decide import change as decide
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.streamer import classes
from lectern.timing import comes
from lectern.wire.fields import called
from lectern.wire.messages import Amend

OTHER_TIME = "the class was changed, and begins at another time"

LOOK_EVERY_S = 3.0  # seconds between two looks at the changes that wait to be confirmed, if no new one is announced
CONFIRMS_S = 5.0
"""Seconds in which the playout mostly confirms; a change that it does not confirm by then is looked at again."""


@flow(name="amend", persist_result=False, result_storage=NOWHERE)
async def amend(inbox_ids: str, dry_run: bool = False) -> State[None]:
    """Apply their teacher's changes to the classes of *inbox_ids*; a class on air goes on."""
    batch = await read(current.get(), inbox_ids, (Amend,), dry_run=dry_run)
    early = await batch.host.read_tx(early_amends, batch.came)
    batch = await put_off(batch, early, AGAIN_S, "their classes are being prepared")
    return await batch_flow("amend", batch, decided, after, "What became of each class")


def early_amends(connection: Connection, came: Sequence[Delivery[Amend]]) -> list[int]:
    """The messages that overtook the Prepare of their class, which may wait for its origin, as it is placed now."""
    asked = {delivery.kept.id: delivery.message for delivery in came if isinstance(delivery.message, Amend)}
    coming = inbox.coming(connection, "prepare", {message.class_id for message in asked.values()})
    here = {it.class_id: it.placement for it in airings.where(connection, classes.c.class_id.in_(coming))}
    return [id_ for id_, it in asked.items() if it.class_id in coming and here.get(it.class_id, 0) < it.placement]


async def after(host: StreamerHost, all_changes: Sequence[StreamerChanges]) -> None:
    """What follows the commit: the playout's timetable, the reports, the runs of other times."""
    host.amended.set()
    host.playout.wanted.set()
    await publish_outbox(host)  # no answer waits for Prefect
    for airing, revision in [pair for changes in all_changes for pair in changes.amended]:
        # Its run was planned for the old time; the playout gets the rest by the timetable.
        is_moved = revision.start_time != airing.start_time
        if is_moved and airing.run_id is not None and airing.class_id not in host.playout.watches:
            async with best_effort(f"cancel the run of {airing.class_id}"):
                await host.runs.cancel(airing.run_id, OTHER_TIME)
    host.unplanned.set()


def decided(connection: Connection, changes: StreamerChanges, messages: Sequence[Amend]) -> None:
    """Decide the changes of *messages*: each class takes over the values of its revision."""
    known = airings.by_id(connection, [name for message in messages for name in (message.class_id, message.revision)])
    waiting = airings.unconfirmed(connection)
    for message in messages:
        pair = known.get(message.class_id), known.get(message.revision)
        known |= decide.amend(
            changes, message, *pair, [it for it in waiting if called(it.class_id) == message.class_id], AHEAD_S
        )


# -- what is in force --------------------------------------------------------------------------------------------------
async def keep_confirming(host: StreamerHost) -> None:
    """Tell the teacher of each change when it is in force, or cannot be any more, until cancelled."""
    while True:
        await comes(host.amended, LOOK_EVERY_S)
        host.watchdog.beat("changes")
        host.amended.clear()
        await confirm(host)


async def confirm(host: StreamerHost) -> None:
    """Report the changes that the playout has confirmed, and those whose classes are over."""
    if not await host.read_tx(airings.unconfirmed):
        return
    is_known = await host.playout.in_force(CONFIRMS_S)  # if not in time, it airs what it has confirmed before
    if (await changed(host, confirmed(host.playout.confirmed, is_known=is_known))).sends:
        await publish_outbox(host)


@decision
def confirmed(
    connection: Connection, changes: StreamerChanges, lessons: Mapping[str, ScheduledClass], *, is_known: bool = True
) -> None:
    """Decide which revisions are in force: by content, as the rows are now, and as the playout airs its *lessons*.

    If it is not known that it airs no others, it may air a class that is not among them at the time of before.
    """
    odd = airings.unreadable(connection)  # of these nothing can be said
    waiting = [it for it in airings.unconfirmed(connection) if called(it.class_id) not in odd]
    classes = airings.by_id(connection, [called(airing.class_id) for airing in waiting])
    for revision in waiting:
        airing, is_aired = classes.get(called(revision.class_id)), False
        if airing is not None and airing.end_time > changes.now:
            wanted, lesson = scheduled(changes.settings.video_root, airing), lessons.get(airing.class_id)
            if lesson is None:  # so far ahead of its start the playout must not know it
                is_aired = is_known and airing.start_time > changes.now + AHEAD_S
            else:
                is_aired = all(lesson[name] == value for name, value in wanted.items())
        decide.confirm(changes, revision, airing, is_aired=is_aired)
