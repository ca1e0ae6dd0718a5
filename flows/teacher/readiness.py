"""Raises alarms for classes that begin soon and that no streamer has yet."""

import asyncio
import time
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from flows.handling import Decide, apart, changed
from flows.host import CHECKING, Teacher, is_ours, log
from flows.tell import tell
from lectern import errors
from lectern.changes import Changes
from lectern.decide import readiness as decide
from lectern.decide.readiness import LATE_AFTER_S, LOOK_EVERY_S
from lectern.effects.rows import bookings
from lectern.facts import Order

Begins = tuple[str, float]
"""A class and its start (epoch seconds): one that is moved to another time is checked before that, too."""


async def teacher_checks(host: Teacher) -> None:
    """Check, until cancelled, the classes that no streamer has yet; of several teachers, only one does so."""
    done: dict[Begins, float] = {}
    while True:
        host.rounds.come("readiness")
        if await is_ours(host, CHECKING, 3 * LOOK_EVERY_S):
            done = await check_of_teacher(host, done, time.time())
        await asyncio.sleep(LOOK_EVERY_S)


async def check_of_teacher(host: Teacher, done: Mapping[Begins, float], now: float) -> dict[Begins, float]:
    """Raise alarms for unready bookings whose check is due; returns the last check of each, to be passed as *done*."""
    found = await host.look(bookings.unready, now - LATE_AFTER_S, now, now + decide.CHECKS_S[0])
    unready = {(one.class_id, one.start_time): one for one in found}
    due = decide.checks_due({its: one.start_time for its, one in unready.items()}, now, done)
    if due:
        late = [unready[its] for its in due]
        await apart(late, lambda some: changed(host, _late(some)), lambda one: one.class_id)
        await tell(host)
    done = {its: at for its, at in done.items() if its in unready} | due
    if done:
        host.ongoing[errors.NOT_READY_FOR_START.number] = time.monotonic()
    return done


def _late(late: Sequence[Order]) -> Decide[Changes]:
    def go(_: Connection, changes: Changes) -> None:
        for one in late:
            why = f"{one.streamer} does not have it yet" if one.streamer else "it is not made yet"
            said = decide.sentence(one.class_id, one.stem, one.start_time - changes.now, [why])
            log.warning("%s", said)
            changes.alarm(errors.NOT_READY_FOR_START, said, one)

    return go
