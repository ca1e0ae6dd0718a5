"""A rendition whose file is lost, or damaged, is put aside and downloaded again if classes need it."""

import asyncio
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from flows.handling import changed
from flows.host import Streamer, log
from flows.streamer.prepare import follow
from flows.tell import tell
from lectern import errors
from lectern.decide import lost_file as decide
from lectern.effects.files import store
from lectern.effects.media import whole
from lectern.effects.rows import airings, cache
from lectern.errors import LecternError
from lectern.facts import Airing, Cached
from lectern.states import LIVE_AIRINGS, AiringState, FileState
from lectern.streamer_changes import StreamerChanges


async def replace(host: Streamer, stem: str, why: str, *, seen_at: float | None = None) -> bool:
    """Put what there is of a rendition aside and download it again; returns whether it did.

    *seen_at* is when the playout found that it cannot push the file (epoch seconds); a file that was put there since
    stays, as the playout looks for it by itself. If None, nothing is done while a class is pushed from the file, or if
    it is well by now: it may have been made anew since somebody looked.
    """
    path = store.rendition_path(host.settings.video_root, stem)
    async with host.cache_lock:
        row = (await host.look(cache.by_stem, [stem])).get(stem)
        pushed = await host.look(airings.citing, stem, {AiringState.ON_AIR})
        if row is None or row.state is not FileState.READY or (pushed and seen_at is None):
            return False
        if await (_is_well(path, row) if seen_at is None else asyncio.to_thread(_was_put_since, path, seen_at)):
            log.info("%s: is well by now, it stays", stem)
            return False
        try:
            if await asyncio.to_thread(path.exists):
                await asyncio.to_thread(store.quarantine, host.settings.video_root, path)
        except OSError as error:
            log.error("%s: its file cannot be put aside: %s", stem, error)
        await fetch_again(host, row, why)
    await tell(host)
    return True


def _was_put_since(path: Path, at: float) -> bool:
    try:
        return path.stat().st_ctime > at  # the time of its renaming: wget gives it the origin's modification time
    except OSError:
        return False


async def _is_well(path: Path, row: Cached) -> bool:
    size, unreadable = await asyncio.to_thread(store.readable, path)
    if size != row.size_bytes or unreadable is not None:
        return False
    return await whole.quick_trouble(path, row) is None


async def fetch_again(host: Streamer, row: Cached, why: str) -> bool:
    """Reserve a second download of *row* if classes need it; returns whether they do."""
    changes = await changed(host, partial(lose, row=row, why=why))
    follow(host, changes)
    return bool(changes.reserved)


def lose(connection: Connection, changes: StreamerChanges, row: Cached, why: str) -> None:
    """Forget the file of *row*, which is lost as *why* says."""
    citing = airings.citing(connection, row.stem, LIVE_AIRINGS)
    needing = sum(one.state is not AiringState.WAITING for one in citing)
    log.warning("%s: its file is lost: %s; %d classes need it", row.stem, why, needing)
    decide.fetch_again(changes, row, airings.latest_url(connection, row.stem) or row.url, citing, why)


def refuse(connection: Connection, changes: StreamerChanges, stem: str, error: LecternError) -> None:
    """Refuse all classes that wait for a rendition: it cannot be had. Those on air go on without it."""
    waiting = airings.citing(connection, stem, {AiringState.WAITING, AiringState.ON_AIR})
    decide.refuse(changes, waiting, error.code or errors.DOWNLOAD_FAILED, error.message)


def on_air(connection: Connection, stem: str, now: float) -> list[Airing]:
    """The classes that should be on air at *now* with the rendition, and that had it, or go on without it."""
    citing = airings.citing(connection, stem, {AiringState.ON_AIR, AiringState.WAITING})
    promised = [one for one in citing if one.lost or one.state is AiringState.ON_AIR]
    return [one for one in promised if one.start_time <= now < one.end_time]


def alarm_on_air(connection: Connection, changes: StreamerChanges, stem: str, why: str) -> None:
    """Raise an alarm for the classes that are on air without their recording, which cannot be had now."""
    decide.alarm_on_air(changes, on_air(connection, stem, changes.now), why)
