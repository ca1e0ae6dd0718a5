"""Settles transcodings whose deadline has passed: their output is there after all, they fall back, or time out."""

import asyncio
import time
from collections.abc import Sequence

from sqlalchemy import Connection

from flows.handling import Decide, apart, changed
from flows.host import Teacher, log
from flows.teacher import results
from flows.teacher.ecs import flow as ecs
from flows.teacher.roll import living
from flows.trouble import words
from lectern.changes import Changes
from lectern.decide import results as decide
from lectern.decide import transcode
from lectern.decide.results import Late
from lectern.effects.rows import bookings, inbox, transcodings
from lectern.errors import Caught
from lectern.model.tables.teacher import RenditionRow
from lectern.stems import stem

RESULTS_FIRST_S = 60.0
"""Seconds after its deadline after which a transcoding is timed out even while unread results wait."""

LOOKS = 100
"""Number of outputs that are looked for at the same time: each holds a socket, and a process has about a thousand."""


def _overdue(connection: Connection, host: Teacher) -> list[RenditionRow]:
    """The transcodings to time out; while unread results wait, one may be theirs, so only those long overdue."""
    now = time.time()
    due = transcodings.overdue(connection, now)
    unread = bool(due) and inbox.waits(connection, host.journal, "transcoding")
    return [one for one in due if not unread or (one.deadline or now) < now - RESULTS_FIRST_S]


async def time_out(host: Teacher, *, dry_run: bool = False) -> list[Changes]:
    """Settle every transcoding whose deadline has passed; first look whether its output is there after all.

    Raises TryAgain while Redis is away: no answer could be sent, and no streamer chosen.
    """
    due = await host.look(_overdue, host)
    if not due:
        return []
    alive = await living(host)
    gate = asyncio.Semaphore(LOOKS)

    async def output(one: RenditionRow) -> str | None:
        async with gate:
            return await _output(host, one)

    there = await asyncio.gather(*map(output, due))
    lists = await results.old_waiters(host, {one.key for one in due})
    late = [Late(one.key, one.backend, _what(host, one, url), url) for one, url in zip(due, there, strict=True)]
    found = await apart(
        late, lambda some: changed(host, expired(some, alive, lists), dry_run=dry_run), lambda one: str(one.key)
    )
    if not dry_run:
        await results.follow(host, found.done, lists)
    return found.done


async def _output(host: Teacher, one: RenditionRow) -> str | None:
    """The URL of the output, if it is there; an unexpected error counts as absence, and stops no other rendition."""
    with Caught() as failed:
        return await ecs.output_there(host, one)
    assert failed.error is not None
    log.error("%s: its output cannot be looked for: %s", stem(*one.key), words(failed.error))
    return None


def _what(host: Teacher, one: RenditionRow, url: str | None) -> transcode.Overdue:
    return transcode.overdue(
        output_there=url is not None,
        backend=one.backend,
        on_timeout=host.settings.on_transcode_timeout,
        ecs=bool(host.settings.ecs_hosts),
    )


def expired(late: Sequence[Late], alive: Sequence[str], lists: results.Lists) -> Decide[Changes]:
    """Settle those of *late* that no result has settled while their output was looked for."""

    def go(connection: Connection, changes: Changes) -> None:
        open_ = {one.key for one in transcodings.overdue(connection, changes.now)}
        waiters = results.waiters_of(connection, changes, [one.key for one in late if one.key in open_], lists)
        ahead = decide.Ahead(bookings.loads(connection, alive, changes.now), changes.now + ecs.DEADLINE_S)
        for one in late:
            if one.key in open_:
                decide.expire(changes, one, waiters[one.key], ahead)

    return go
