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
from lectern.effects.rows.remade import remade
from lectern.facts import Cached
from lectern.states import FileState

LOOK_EVERY_S = 20.0
Seen = tuple[int, int]
"""Size and modification time of a file that can get no index; it is tried again when they have changed."""


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
        try:
            await _index(host, row, path)
        except DBAPIError as error:
            log.error("%s: its index is not written down, it is made again: %s", row.stem, error.orig)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is this file's: the next ones are looked at)
            failed[row.stem] = seen
            log.error("%s: can get no index, and may not be aired: %s", row.stem, error)
        else:
            failed.pop(row.stem, None)


async def _index(host: Streamer, row: Cached, path: Path) -> None:
    async with host.cache_lock:  # nothing evicts it, or puts it aside, meanwhile
        found, plain = await airable.looked(path)
        if plain != path:
            await asyncio.to_thread(store.finish, plain, path)
        await asyncio.to_thread(airable.write_index, found, path)
        if found.size_bytes != row.size_bytes:
            mtime = (await asyncio.to_thread(path.stat)).st_mtime
            await host.commit(remade, host.settings.video_root, row.stem, found.size_bytes, mtime)
            log.info("%s: made a plain FLV file, of %d bytes", row.stem, found.size_bytes)


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
