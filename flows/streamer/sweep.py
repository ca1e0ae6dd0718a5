"""Reports sent again, evictions taken up, classes closed: what nobody else does any more."""

import time

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from sqlalchemy import Connection

from flows.host import NOWHERE, Host, streamer
from flows.once import alone
from flows.streamer import ends
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


@flow(name="sweep streamer", persist_result=False, result_storage=NOWHERE)
async def sweep_streamer(dry_run: bool = False) -> State[None]:
    """Send reports again, take up evictions that nobody does, close classes that are over."""
    return await alone(streamer(), _sweep_streamer, dry_run)


async def _sweep_streamer(host: Host[StreamerSettings], dry_run: bool) -> State[None]:
    left = await host.look(_left)
    if dry_run:
        return Completed(message=f"dry run: {left.words()}")
    await cache.remove_files(host, left.evicting)
    for one in left.over:
        await _close_late(host, one)
    sent = await tell(host)
    return Completed(message=left.words() if sent else f"{left.words()}; Redis is away")


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
    def __init__(self, evicting: list[Idle], over: list[airings.Airing]) -> None:
        self.evicting, self.over = evicting, over

    def words(self) -> str:
        return f"{len(self.evicting)} evictions, {len(self.over)} past their end"


def _left(connection: Connection) -> _Left:
    return _Left(
        [Idle(one.stem, one.size_bytes) for one in rows.evicting(connection)],
        airings.over(connection, time.time() - OVER_S),
    )


def due(connection: Connection) -> bool:
    """Whether a sweep of a streamer would find anything to do."""
    return bool(airings.over(connection, time.time() - OVER_S) or rows.evicting(connection))
