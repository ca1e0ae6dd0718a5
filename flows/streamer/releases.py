"""Releases cancelled and moved classes, then holds the lease that the teacher grants."""

import time
from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection

from flows import tries
from flows.handling import Came, handled
from flows.handling import came as came_of
from flows.host import Streamer, log
from flows.prefect_api import best_effort
from flows.tell import tell
from lectern.decide import endings as decide
from lectern.effects.rows import airings, inbox
from lectern.facts import Airing, Kept
from lectern.messages import Grant, Release
from lectern.streamer_changes import StreamerChanges

COMMANDS = frozenset({"release", "grant"})
GRANT_AGAIN_S = 1.0
"""Seconds until a grant that waits for a failed release, or for the playout, is tried again."""

OFF_AIR_S = 5.0
"""Seconds in which the playout must confirm that it has left the released classes."""

WHY = "the class was cancelled"


async def end_pushes(host: Streamer, released: Sequence[Airing]) -> bool:
    """Take classes off the air that are released in the database already, and end the runs that watch them.

    Returns whether nothing of them is pushed any more, or will be by the next worker of a playout that is away.
    """
    for one in released:
        watching = host.playout.watches.get(one.class_id)
        for run_id in {one.run_id, watching.run_id if watching else None} - {None}:
            host.runs.end(str(run_id), WHY)
    return await host.playout.in_force(OFF_AIR_S) or host.playout.client is None


async def end_runs(host: Streamer, released: Sequence[Airing]) -> None:
    """Take the runs of released classes off the timetable; what runs here has been ended by `end_pushes`."""
    for one in released:
        if one.run_id is not None:
            async with best_effort(f"cancel the run of {one.class_id}"):
                await host.runs.cancel(one.run_id, WHY)


async def take_back(host: Streamer, kept: Sequence[Kept]) -> list[Airing]:
    """Handle releases, then grants; returns the classes that were released.

    Their pushes must end before a lease is granted, which would let them go on. So a grant waits for a release that
    failed, until the release is given up, and for the playout to confirm that it has left the classes.
    """
    came: list[Came[Release | Grant]] = [came_of(one, (Release, Grant)) for one in kept]
    grants = [one for one in came if one.kept.command == "grant"]
    found = await handled(host, [one for one in came if one not in grants], release)
    stops = [one for changes in found.done for one in changes.moved]
    if stops:
        log.info("released: %s", ", ".join(one.class_id for one in stops))
    is_off_air = await end_pushes(host, stops) if stops or grants else True
    if grants and (found.failed or not is_off_air):
        ids = [one.kept.id for one in grants]
        await host.commit(inbox.put_off, host.journal, ids, time.time() + GRANT_AGAIN_S)
    elif grants:
        held = await handled(host, grants, partial(grant, host.claim))
        found.failed += held.failed
        for session in (changes.session for changes in held.done if changes.session is not None):
            if host.playout.cleared is not None:  # else it is cleared when the playout is connected again
                host.playout.cleared = session, host.playout.cleared[1]
        host.granted.set()
        host.playout.wanted.set()  # a look at the rows that began before the grant does not know its session
    for one, _ in found.failed:
        await tries.failed(host, [one.kept.id])
    await tell(host)
    return stops


def release(connection: Connection, changes: StreamerChanges, messages: Sequence[Release | Grant]) -> None:
    """Decide the releases among *messages*."""
    asked = [one for one in messages if isinstance(one, Release)]
    known = airings.by_id(connection, [one.class_id for one in asked])
    for one in asked:
        after = decide.release(changes, known.get(one.class_id), one)
        if after is not None:
            known[one.class_id] = after


def grant(claim: str, _connection: Connection, changes: StreamerChanges, messages: Sequence[Release | Grant]) -> None:
    """Hold the lease that was asked for by *claim*: all that was taken away before is released by now.

    Any other lease is ignored: it was asked for before this process started, or not at all.
    """
    for one in messages:
        if not isinstance(one, Grant) or (one.streamer, one.session) != (changes.settings.name, claim):
            log.info("lease: a grant that was not asked for is passed over")
            continue
        changes.session = one.session
        changes.note("lease granted")
