"""Reports sent again, downloads and evictions taken up: what nobody else does any more."""

import time
from collections.abc import Mapping

import httpx
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectException
from prefect.states import Completed
from sqlalchemy import Connection

from flows.host import NOWHERE, Host, log, streamer
from flows.once import GRACE_S, alone, prune
from flows.streamer import download, ends
from flows.streamer import prepare as cache
from flows.tell import tell
from lectern.effects.rows import airings
from lectern.effects.rows import cache as rows
from lectern.errors import TryAgain
from lectern.facts import Idle
from lectern.settings import StreamerSettings
from lectern.states import AiringState

UNKNOWN_S = 300.0
"""Seconds after its end in which a class waits for the playout to say how it was aired."""

OVER_S = 30.0
"""A class that ended so long ago, and that nobody airs, is closed: its citation is taken back."""

TOLD_AGAIN = "told its streamer again"
"""Noted once a class: a long download would fill its story with it."""

ASKED = 200
"""Number of downloads about which Prefect is asked in a sweep."""

UNREPORTED_S = 60.0
UNENDED_S = 300.0
"""A class that ended so long ago, and of which no streamer said how, was not aired to its end."""


SWEEP = "a sweep"
"""What is busy while one is at work; no class is called so."""

ASKED = 200
"""Number of downloads about which Prefect is asked in a sweep."""

UNREPORTED_S = 60.0
UNENDED_S = 300.0
"""A class that ended so long ago, and of which no streamer said how, was not aired to its end."""


SWEEP = "a sweep"
"""What is busy while one is at work; no class is called so."""


@flow(name="sweep streamer", persist_result=False, result_storage=NOWHERE)
async def sweep_streamer(dry_run: bool = False) -> State[None]:
    """Send reports again, take up downloads and evictions that nobody does."""
    return await alone(streamer(), _sweep_streamer, dry_run)


async def _sweep_streamer(host: Host[StreamerSettings], dry_run: bool) -> State[None]:
    left = await host.commit(_left, host)
    if dry_run:
        return Completed(message=f"dry run: {left.words()}")
    await cache.remove_files(host, left.evicting)
    for stem in left.downloads.keys() - await _cancelled(host, left.downloads):
        await download.start(host, stem)
    for one in left.over:
        await _close_late(host, one)
    await host.commit(prune, host)
    sent = await tell(host)
    return Completed(message=left.words() if sent else f"{left.words()}; Redis is away")


async def _cancelled(host: Host[StreamerSettings], downloads: Mapping[str, str | None]) -> set[str]:
    """Give up the downloads whose runs a person cancelled while no process was at them; returns their stems.

    Where Prefect cannot be asked, none is known to be cancelled.
    """
    by_run = {run_id: stem for stem, run_id in downloads.items() if run_id is not None}
    try:
        found = await host.runs.cancelled(list(by_run)[:ASKED]) if by_run else []
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("prefect: can not ask for cancelled downloads: %r", error)
        return set()
    for run_id in found:
        await download.give_up(host, by_run[run_id], download.cancelled(by_run[run_id]))
    return {by_run[run_id] for run_id in found}


async def _close_late(host: Host[StreamerSettings], one: airings.Airing) -> None:
    """Close a class whose end nobody wrote down, as the playout has it; for a while, one that is away is waited for."""
    try:
        found = (await host.playout.ask("status", class_id=one.class_id))["classes"]
    except TryAgain:
        if host.settings.playout != "ffmpeg" and time.time() - one.end_time < UNKNOWN_S:
            return
        found = []
    if found and found[0]["state"] == "ended" and one.state is not AiringState.WAITING:
        await ends.ended(host, one.class_id, found[0])
    else:
        await ends.close_late(host, one)


class _Left:
    def __init__(self, evicting: list[Idle], downloads: dict[str, str | None], over: list[airings.Airing]) -> None:
        self.evicting, self.downloads, self.over = evicting, downloads, over

    def words(self) -> str:
        return f"{len(self.evicting)} evictions, {len(self.downloads)} downloads, {len(self.over)} past their end"


def _left(connection: Connection, host: Host[StreamerSettings]) -> _Left:
    before = time.time() - GRACE_S
    return _Left(
        [Idle(one.stem, one.size_bytes) for one in rows.evicting(connection)],
        {one.stem: one.run_id for one in rows.downloading(connection, before) if one.stem not in host.busy},
        airings.over(connection, time.time() - OVER_S),
    )


def due(connection: Connection, host: Host[StreamerSettings]) -> bool:
    """Whether a sweep of this streamer would find anything to do."""
    now = time.time()
    idle = [one for one in rows.downloading(connection, now - GRACE_S) if one.stem not in host.busy]
    return bool(idle or airings.over(connection, now - OVER_S) or rows.evicting(connection))
