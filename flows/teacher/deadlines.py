"""Transcodings whose deadline has passed: their output is there after all, or they fall back, or are timed out."""

import asyncio
import time

from sqlalchemy import Connection

from flows.batch import Batch
from flows.teacher import results
from flows.teacher.attempts import start_ecs
from flows.teacher.ecs import flow as ecs
from flows.teacher.verdicts import Teacher, living
from flows.tell import tell
from lectern import errors
from lectern.decide import transcode as decide
from lectern.decide.transcode import Overdue
from lectern.effects.rows import events, inbox, metrics, renditions
from lectern.effects.rows.renditions import Due
from lectern.facts import Event, RenditionKey
from lectern.states import RenditionState

RESULTS_FIRST_S = 60.0
"""So long after its deadline a transcoding is timed out although results wait that nobody has read."""


def _overdue(connection: Connection, host: Teacher) -> list[Due]:
    """What has passed its deadline; a result that came before it and waits, for we were away, goes first."""
    now = time.time()
    due = renditions.overdue(connection, now)
    unread = bool(due) and inbox.waits(connection, host.journal, "transcoding")
    return [one for one in due if not unread or (one.deadline or now) < now - RESULTS_FIRST_S]


async def time_out(host: Teacher) -> Batch:
    """Settle every transcoding whose deadline has passed; first look whether its output is there after all.

    Raises TryAgain while Redis is away: nobody could be told, nor any streamer be chosen.
    """
    batch = Batch()
    due = await host.look(_overdue, host)
    if not due:
        return batch
    alive = await living(host)
    there = await asyncio.gather(*(ecs.output_there(host, one) for one in due))
    lists = await results.old_waiters(host, {one.key for one in due})
    falling: list[RenditionKey] = []
    for one, url in zip(due, there, strict=True):
        what = decide.overdue(
            output_there=url is not None,
            backend=one.backend,
            on_timeout=host.settings.on_transcode_timeout,
            ecs=bool(host.settings.ecs_hosts),
        )
        if what is Overdue.FALL_BACK:
            falling.append(one.key)
        await host.commit(_expire, host, one, what, url, alive, lists[one.key], batch)
    await tell(host)
    await results.drop_lists(host, [one.key for one in due if one.key not in falling], lists)
    await start_ecs(host, falling)
    return batch


def _expire(
    connection: Connection,
    host: Teacher,
    one: Due,
    what: Overdue,
    url: str | None,
    alive: list[str],
    listed: list[str],
    batch: Batch,
) -> None:
    now = time.time()
    if one.key not in {late.key for late in renditions.overdue(connection, now)}:
        return  # settled while we looked
    metrics.TRANSCODES.labels(str(one.backend), what.name.lower()).inc()
    match what:
        case Overdue.SUCCEED:
            results.succeed(connection, host, one.key, RenditionState.TRANSCODING, url or "", alive, listed, batch, now)
        case Overdue.FALL_BACK:
            renditions.fall_back(connection, [one.key], now + ecs.DEADLINE_S, now)
        case Overdue.TIME_OUT:
            why = f"no result of the {one.backend or 'old'} transcoding in time"
            results.give_up(
                connection, host, one.key, RenditionState.TIMED_OUT, errors.TRANSCODE_TIMED_OUT, why, listed, batch, now
            )
    events.note(connection, host.journal, host.settings.name, [Event(f"deadline passed: {what}", stem=one.stem)], now)
    batch.row(one.stem, what)
