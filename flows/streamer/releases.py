"""What the teacher takes back: cancelled and moved classes are released; after them a lease may be granted."""

import time
from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection

from flows import tries
from flows.batch import apart
from flows.host import Host, log
from flows.tell import tell
from lectern import errors
from lectern.commands import parse
from lectern.effects.rows import airings, events, inbox, leases, outbox, released
from lectern.effects.rows.airings import Airing
from lectern.errors import Malformed, TryAgain
from lectern.facts import Event, Kept
from lectern.messages import Grant, Release, Report
from lectern.outgoing import Kind, Outgoing
from lectern.settings import StreamerSettings
from lectern.states import AiringState

Streamer = Host[StreamerSettings]
COMMANDS = frozenset({"release", "grant"})
GRANT_AGAIN_S = 1.0
"""Seconds until a grant is tried again that waits for a release."""

OVER = frozenset({AiringState.AIRED, AiringState.REFUSED, AiringState.CANCELLED})
WHY = "the class was cancelled"


async def end_pushes(host: Host[StreamerSettings], released: Sequence[Airing]) -> None:
    """Take classes off the air that are released in the database already, and end the runs that watch them."""
    for one in released:
        watching = host.playout.watches.get(one.class_id)
        for run_id in {one.run_id, watching.run_id if watching else None} - {None}:
            host.runs.end(str(run_id), WHY)
        await host.playout.cancel(one.class_id)


async def end_runs(host: Host[StreamerSettings], released: Sequence[Airing]) -> None:
    """Take the runs of released classes off the timetable; what runs here has been ended by `end_pushes`."""
    for one in released:
        if one.run_id is None:
            continue
        try:
            await host.runs.cancel(one.run_id, WHY)
        except TryAgain as error:
            log.warning("%s: its run cannot be cancelled in the UI: %s", one.class_id, error.message)


def release(connection: Connection, host: Streamer, message: Release, now: float) -> list[Airing]:
    """Release a cancelled or moved class; one that it overtook is noted, so that it is not taken when it comes.

    Returns it where it was not over.
    """
    known = airings.by_id(connection, [message.class_id]).get(message.class_id)
    if known is None:
        released.note_released(connection, message.class_id, message.placement, now)
        return []
    is_earlier = message.placement is not None and message.placement < known.placement
    if is_earlier:
        return []
    if known.state in OVER:
        released.taken_away(connection, known.class_id)
        return []
    airings.move(connection, known, AiringState.CANCELLED, now)
    events.note(connection, host.journal, host.settings.name, [Event("released", known.class_id, known.stem)], now)
    return [known]


def grant(connection: Connection, host: Streamer, message: Grant, now: float) -> None:
    """Hold the lease that was asked for: all that was taken away before is released by now.

    Another is passed over: it was asked for before the start of this process, or nobody has asked for it.
    """
    if (message.streamer, message.session) != (host.settings.name, host.claim):
        log.info("lease: a grant that was not asked for is passed over")
        return
    leases.hold(connection, message.streamer, message.session, now)
    events.note(connection, host.journal, host.settings.name, [Event("lease granted")], now)


async def take_back(host: Streamer, kept: Sequence[Kept]) -> list[Airing]:
    """Handle releases, then grants; returns the classes that were released.

    Their pushes have ended when a lease is granted: it would let them go on. So a grant waits for a release that
    fails, until that is given up.
    """
    grants = [one for one in kept if one.command == "grant"]
    found = await apart([one for one in kept if one not in grants], partial(_handled, host), _name)
    stops = [one for some in found.done for one in some]
    if stops:
        log.info("released: %s", ", ".join(one.class_id for one in stops))
        await end_pushes(host, stops)
    if grants and found.failed:
        ids = [one.id for one in grants]
        await host.commit(inbox.put_off, host.journal, ids, time.time() + GRANT_AGAIN_S)
    elif grants:
        found.failed += (await apart(grants, partial(_handled, host), _name)).failed
    for one, _ in found.failed:
        await tries.failed(host, [one.id])
    await tell(host)
    return stops


def _name(kept: Kept) -> str:
    return f"inbox {kept.id}"


async def _handled(host: Streamer, kept: Sequence[Kept]) -> list[Airing]:
    return await host.commit(_handle, host, kept)


def _confirm(connection: Connection, host: Streamer, message: Release, now: float) -> None:
    """Report that a cancelled class is given up, whether it was here or not: the teacher tells it until it hears so."""
    known = airings.by_id(connection, [message.class_id]).get(message.class_id)
    code = errors.CANCELLED
    said = Report(
        cmd="ended",
        class_id=message.class_id,
        streamer=host.settings.name,
        result="fail",
        code=code.number,
        message="released",
        placement=known.placement if known else 1,
    )
    outbox.put(connection, host.journal, [Outgoing(host.settings.report_stream, Kind.STREAM, said, said.class_id)], now)


def _handle(connection: Connection, host: Streamer, kept: Sequence[Kept]) -> list[Airing]:
    now = time.time()
    stops: list[Airing] = []
    for one in kept:
        try:
            message = parse(one.body, (Release, Grant))
        except Malformed as error:
            inbox.bury(connection, host.journal, one, error.message, host.settings.dead_letter_stream, now)
            continue
        if isinstance(message, Grant):
            grant(connection, host, message, now)
        elif isinstance(message, Release):
            stops += release(connection, host, message, now)
            if message.placement is None:
                _confirm(connection, host, message, now)
        inbox.done(connection, host.journal, [one.id])
    return stops
