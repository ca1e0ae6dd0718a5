"""Gives renditions of an earlier release their keyframe index before their class, and makes them plain FLV."""

import asyncio
import time
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from flows.host import Streamer, log
from flows.streamer.lessons import AHEAD_S
from lectern.effects.files import store
from lectern.effects.media import airable
from lectern.effects.rows import airings, cache
from lectern.effects.rows.airings import remade
from lectern.errors import DISK_FULL, Caught, Refuse
from lectern.facts import Cached
from lectern.states import FileState

LOOK_EVERY_S = 20.0
AGAIN_S = 300.0
"""Seconds until a file is tried again that may be well: the disk was full or slow, or something odd happened."""

Seen = tuple[int, int]
"""Size and modification time of a file; if it can get no index, it is tried again when they have changed."""


async def keep(host: Streamer) -> None:
    """Make what is missing for the classes that begin soon, one file after another, until cancelled."""
    failed: dict[str, Seen] = {}
    while True:
        host.rounds.come("indexes")
        await make(host, failed)
        await asyncio.sleep(LOOK_EVERY_S)


async def make(host: Streamer, failed: dict[str, Seen]) -> None:
    """Make what is missing once; *failed* remembers the files that can get no index."""
    for row in await host.look(_due, time.time()):
        path = store.rendition_path(host.settings.video_root, row.stem)
        seen = await asyncio.to_thread(_seen, path)
        if seen is None or failed.get(row.stem) == seen or await asyncio.to_thread(airable.has_index, path):
            continue
        with Caught() as caught:
            await _index(host, row, path, seen)
        error = caught.error
        if error is None:
            failed.pop(row.stem, None)
        elif isinstance(error, DBAPIError):
            log.error("%s: its index is not written down, it is made again: %s", row.stem, error.orig)
        elif await asyncio.to_thread(_seen, path) == seen:  # else it was evicted, or replaced
            failed[row.stem] = seen
            if not isinstance(error, Refuse) or error.code is DISK_FULL:  # it says nothing about the file
                asyncio.get_running_loop().call_later(AGAIN_S, failed.pop, row.stem, None)
            log.error("%s: can get no index, and may not be aired: %s", row.stem, error)


async def _index(host: Streamer, row: Cached, path: Path, seen: Seen) -> None:
    """Make a plain FLV file without the lock, because that can take half an hour; put it in its place under the lock.

    If the file was evicted or replaced since it was *seen*, or somebody has deleted the new one, nothing is put there.
    """
    found, plain = await airable.looked(path)
    try:
        async with host.cache_lock:
            now = (await host.look(cache.by_stem, [row.stem])).get(row.stem)
            same = await asyncio.to_thread(lambda: _seen(path) == seen and plain.exists())
            if now is None or now.state is not FileState.READY or not same:
                return
            if plain != path:
                await asyncio.to_thread(store.finish, plain, path)
            if found.size_bytes != row.size_bytes:  # before there is an index, without which all of it is done again
                mtime = (await asyncio.to_thread(path.stat)).st_mtime
                await host.commit(remade, host.settings.video_root, row.stem, found.size_bytes, mtime)
                log.info("%s: made a plain FLV file, of %d bytes", row.stem, found.size_bytes)
            await asyncio.to_thread(airable.write_index, found, path)
    finally:
        if plain != path:
            await asyncio.to_thread(store.remove, plain)


def _due(connection: Connection, now: float) -> list[Cached]:
    found = airings.due(connection, now + AHEAD_S, now)
    rows = cache.by_stem(connection, {one.stem for one in found})
    return [row for row in rows.values() if row.state is FileState.READY]


def _seen(path: Path) -> Seen | None:
    try:
        looked = path.stat()
    except OSError:
        return None
    return looked.st_size, looked.st_mtime_ns
