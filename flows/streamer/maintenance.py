"""Sends reports again, finishes evictions, and closes classes that no run looks after any more."""

import time

from prefect import flow
from prefect.client.schemas.objects import State
from sqlalchemy import Connection

from flows.failures import isolated
from flows.handling import Decide, Swept, changed, sweep_flow
from flows.host import NOWHERE, StreamerHost, streamer
from flows.streamer import playout_events
from flows.streamer.prepare import remove_files
from lectern.db import airings, cache
from lectern.errors import TryAgain
from lectern.i18n import Text
from lectern.model.facts import Airing, Idle
from lectern.model.streamer_plan import StreamerChanges
from lectern.states import AiringState

UNKNOWN_S = 300.0
"""Seconds after its end in which a class waits for the playout to say how it was aired."""

OVER_S = 30.0
"""Seconds after its end after which a class that is not aired is closed: its citation is taken back."""


@flow(name="sweep streamer", persist_result=False, result_storage=NOWHERE)
async def sweep_streamer(dry_run: bool = False) -> State[None]:
    """Send reports again, take up evictions that nobody does, close classes that are over."""
    return await sweep_flow(streamer(), _sweep, dry_run)


async def _sweep(host: StreamerHost, dry_run: bool) -> Swept:
    evicting, over = await host.read_tx(_left)
    ways = [(airing, way) for airing in over if (way := await _way(host, airing)) is not None]
    text = f"{len(evicting)} evictions, {len(over)} past their end"
    if dry_run:
        planned = [await changed(host, way, dry_run=True) for _, way in ways]
        return planned, text, [f"{rendition.stem}: its file is removed" for rendition in evicting]
    async with host.cache_lock:  # while the playout was asked, one may have been downloaded again
        await remove_files(host, (await host.read_tx(_left))[0])
    done: list[StreamerChanges] = []
    for airing, way in ways:
        async with isolated(host, Text("class {class_id}", class_id=airing.class_id)):  # one odd row holds up no other
            done.append(await changed(host, way))
            host.playout.over(airing.class_id)
    return done, text, ()


async def _way(host: StreamerHost, airing: Airing) -> Decide[StreamerChanges] | None:
    """How to close a class whose end was not recorded: as the playout reports it.

    None while the playout is away and is still waited for.
    """
    try:
        statuses = (await host.playout.ask("status", class_id=airing.class_id))["classes"]
    except TryAgain:
        return None if time.time() - airing.end_time < UNKNOWN_S else playout_events.closing_of_late(airing.class_id)
    is_told = (
        bool(statuses)
        and statuses[0]["state"] == "ended"
        and playout_events.is_of_row(host.settings.video_root, airing, statuses[0], time.time())
    )
    if is_told and (airing.lost or airing.state is not AiringState.WAITING):
        return playout_events.closing_of(airing.class_id, statuses[0])
    return playout_events.closing_of_late(airing.class_id, is_known=not statuses)


def _left(connection: Connection) -> tuple[list[Idle], list[Airing]]:
    """The evictions that were not finished, and the classes that are past their end."""
    evicting = [Idle(row.stem, row.size_bytes) for row in cache.evicting(connection)]
    return evicting, airings.over(connection, time.time() - OVER_S)


def due(connection: Connection) -> bool:
    """Whether a sweep of a streamer would find anything to do."""
    return any(_left(connection))
