"""Checks recordings before their classes: gives them an index, and looks for what is black, frozen or silent."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from flows.handling import changed, decision
from flows.host import StreamerHost, log
from flows.outbox_publisher import publish_outbox
from flows.streamer.playout_sync import AHEAD_S
from lectern import errors
from lectern.db import airings, cache
from lectern.db.airings import remade
from lectern.decide import readiness as decide
from lectern.errors import DISK_FULL, Caught, Refuse
from lectern.i18n import Text, msgid
from lectern.media import integrity
from lectern.media.sampling import samples
from lectern.model.facts import Airing, Cached
from lectern.model.streamer_plan import StreamerChanges
from lectern.states import FileState
from lectern.storage import cache_dir

INDEXES_EVERY_S = 20.0
AGAIN_S = 300.0
"""Seconds until a file is retried that may be well: the disk was full or slow, or something odd happened."""

IndexSeen = tuple[int, int]
"""Size and modification time of a file; if it can get no index, it is retried when they have changed."""


async def keep_indexes(host: StreamerHost) -> None:
    """Make what is missing for the classes that begin soon, one file after another, until cancelled."""
    failed: dict[str, IndexSeen] = {}
    while True:
        await _done(host, "indexes", make_indexes(host, failed), INDEXES_EVERY_S)
        await asyncio.sleep(INDEXES_EVERY_S)


async def _done(host: StreamerHost, loop: str, work: Coroutine[Any, Any, None], round_s: float) -> None:
    """Do *work*, while rounds of its *loop* are counted: one file can take half an hour."""
    doing = asyncio.create_task(work, name=loop)
    try:
        while not doing.done():
            host.watchdog.beat(loop)
            await asyncio.wait({doing}, timeout=round_s)
        doing.result()
    finally:
        doing.cancel()
        await asyncio.wait({doing})  # the program that it has started ends before this process


async def make_indexes(host: StreamerHost, failed: dict[str, IndexSeen]) -> None:
    """Make what is missing once; *failed* remembers the files that can get no index."""
    for row in await host.read_tx(_due, time.time()):
        path = cache_dir.rendition_path(host.settings.video_root, row.stem)
        seen = await cache_dir.in_thread(_seen, path)
        if seen is None or failed.get(row.stem) == seen or await cache_dir.in_thread(integrity.has_index, path):
            continue
        with Caught() as caught:
            await _index(host, row, path, seen)
        error = caught.error
        if error is None:
            failed.pop(row.stem, None)
        elif isinstance(error, DBAPIError):
            log.error("%s: its index is not written down, it is made again: %s", row.stem, error.orig)
        elif await cache_dir.in_thread(_seen, path) == seen:  # else it was evicted, or replaced
            failed[row.stem] = seen
            if not isinstance(error, Refuse) or error.code is DISK_FULL:  # it says nothing about the file
                asyncio.get_running_loop().call_later(AGAIN_S, failed.pop, row.stem, None)
            log.error("%s: can get no index, and may not be aired: %s", row.stem, error)


async def _index(host: StreamerHost, row: Cached, path: Path, seen: IndexSeen) -> None:
    """Make a plain FLV file without the lock, because that can take half an hour; put it in its place under the lock.

    If the file was evicted or replaced since it was *seen*, or somebody has deleted the new one, nothing is put there.
    """
    look, plain = await integrity.looked(path)
    try:
        async with host.cache_lock:
            now = (await host.read_tx(cache.by_stem, [row.stem])).get(row.stem)
            same = await cache_dir.in_thread(lambda: _seen(path) == seen and plain.exists())
            if now is None or now.state is not FileState.READY or not same:
                return
            if plain != path:
                await cache_dir.in_thread(cache_dir.finish, plain, path)
            if look.size_bytes != row.size_bytes:  # before there is an index, without which all of it is done again
                mtime = (await cache_dir.in_thread(path.stat)).st_mtime
                await host.write_tx(remade, host.settings.video_root, row.stem, look.size_bytes, mtime)
                log.info("%s: made a plain FLV file, of %d bytes", row.stem, look.size_bytes)
            await cache_dir.in_thread(integrity.write_index, look, path)
    finally:
        if plain != path:
            await cache_dir.in_thread(cache_dir.remove, plain)


def _due(connection: Connection, now: float) -> list[Cached]:
    classes = sorted(airings.due(connection, now + AHEAD_S, now), key=lambda airing: airing.start_time)
    rows = cache.by_stem(connection, {airing.stem for airing in classes})
    in_order = dict.fromkeys(airing.stem for airing in classes if airing.stem in rows)
    return [rows[stem] for stem in in_order if rows[stem].state is FileState.READY]


def _seen(path: Path) -> IndexSeen | None:
    try:
        looked = path.stat()
    except OSError:
        return None
    return looked.st_size, looked.st_mtime_ns


# Each recording is looked through once before its class; a warning names what is black, frozen or silent in it. The
# look delays nothing: a class is ready before it, and is aired whatever it finds.

DEAD_AIR_EVERY_S = 5.0
REPORTED = 200
"""Number of classes whose faulty recordings a streamer reports to its teacher, the earliest classes first."""


async def keep_dead_air(host: StreamerHost) -> None:
    """Look through one recording after another, until cancelled."""
    while True:
        host.watchdog.beat("dead air")
        if (row := await host.read_tx(airings.unlooked, time.time())) is not None:
            await _done(host, "dead air", look_for_dead_air(host, row), DEAD_AIR_EVERY_S)
        else:
            await asyncio.sleep(DEAD_AIR_EVERY_S)


async def look_for_dead_air(host: StreamerHost, row: Cached) -> None:
    """Look through one recording, and note what was found; one that cannot be looked through is not retried."""
    path = cache_dir.rendition_path(host.settings.video_root, row.stem)
    warning, detail = "", ""
    with Caught() as failed:
        measured = await samples(path, row.duration_s or 0.0)
        warning = await asyncio.to_thread(decide.dead_air_warning, measured)
        nothing = Text("nothing is black, frozen or silent for long")
        if measured.loudness is not None:
            nothing = Text("{nothing}, {loudness:.0f} LUFS", nothing=nothing, loudness=measured.loudness)
        detail = warning or nothing
    if failed.error is not None:  # it is this file's, and those behind it are looked at
        log.warning("%s: was not looked through for dead air: %s", row.stem, failed.error)
        warning, detail = "", Text("it could not be: {error}", error=failed.error)
    await changed(host, _looked_through(row, warning, detail))


async def warn(host: StreamerHost) -> None:
    """Raise an alarm for each class whose recording has dead air or is too short; once."""
    host.dead_air = {airing.class_id: why for airing, why in await host.read_tx(airings.faulty, REPORTED)}
    warnings = await host.read_tx(airings.untold_faults, time.time())
    if warnings:
        await changed(host, _warned(warnings))
        await publish_outbox(host)


@decision
def _looked_through(connection: Connection, changes: StreamerChanges, row: Cached, warning: str, detail: str) -> None:
    if airings.looked(connection, row, warning):
        changes.note("looked through", detail=detail, stem=row.stem)


@decision
def _warned(_: Connection, changes: StreamerChanges, warnings: Sequence[tuple[Airing, str]]) -> None:
    for airing, warning in warnings:
        log.warning("%s: its recording %s is faulty: %s", airing.class_id, airing.stem, warning)
        text = msgid("{class_id}: its recording {stem} is faulty: {warning}")
        said = Text(text, class_id=airing.class_id, stem=airing.stem, warning=warning)
        changes.alarm(errors.DEAD_AIR, said, airing, noted=False)
        changes.note(airings.FAULTS_TOLD, airing, warning)
