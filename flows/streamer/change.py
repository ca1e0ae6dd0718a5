"""Applies the teacher's changes to classes: from the next second on they are aired as changed, in the same session."""

from collections.abc import Sequence

from prefect import flow
from prefect.client.schemas.objects import State
from sqlalchemy import Connection

from flows.handling import Came, ended, handled, printed, read
from flows.host import NOWHERE, Streamer, log, streamer
from flows.tell import tell
from lectern.amendments import Amend
from lectern.decide import amending as decide
from lectern.effects.rows import airings, inbox
from lectern.errors import TryAgain
from lectern.facts import Airing
from lectern.streamer_changes import StreamerChanges

OTHER_TIME = "the class was changed, and begins at another time"


@flow(name="amend", persist_result=False, result_storage=NOWHERE)
async def amend(inbox_ids: str, dry_run: bool = False) -> State[None]:
    """Apply their teacher's changes to the classes of *inbox_ids*; a class on air goes on."""
    host, ids = streamer(), inbox.ids_of(inbox_ids)
    came: list[Came[Amend]] = await read(host, ids, (Amend,))
    found = await handled(host, came, decided, dry_run=dry_run)
    if dry_run:
        return await printed("amend", found.done)
    for one, revision in [pair for changes in found.done for pair in changes.amended]:
        await _follow(host, one, revision)
    host.unplanned.set()
    host.playout.wanted.set()
    await tell(host)
    return await ended("amend", found, "What became of each class", len(ids))


def decided(connection: Connection, changes: StreamerChanges, messages: Sequence[Amend]) -> None:
    """Decide the changes of *messages*: each class takes over the values of its revision."""
    known = airings.by_id(connection, [name for one in messages for name in (one.class_id, one.revision)])
    for one in messages:
        known |= decide.amend(changes, one, known.get(one.class_id), known.get(one.revision))


async def _follow(host: Streamer, one: Airing, revision: Airing) -> None:
    """Take back the run that was planned for the old time of a class; the playout gets the rest by the timetable."""
    if revision.start_time == one.start_time:
        return
    if one.run_id is not None and one.class_id not in host.playout.watches:
        try:
            await host.runs.cancel(one.run_id, OTHER_TIME)
        except TryAgain as error:
            log.warning("%s: its run cannot be cancelled in the UI: %s", one.class_id, error.message)
