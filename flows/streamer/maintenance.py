"""Makes the disk and the database agree at the start; later ends evictions, and classes that no run looks after."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from flows import artifacts
from flows.failures import isolated
from flows.handling import Decide, Swept, changed, sweep_flow
from flows.host import NOWHERE, StreamerHost, current, log
from flows.streamer import downloads, playout_events
from flows.streamer.prepare import disk_answers, remove_files
from lectern import formatting
from lectern.db import airings, cache
from lectern.db.cache_check import CacheDifference, Odd, differences, doubtful, lasting
from lectern.errors import Caught, LecternError, TryAgain
from lectern.i18n import Text
from lectern.media import integrity, probe
from lectern.model.facts import Airing, Cached
from lectern.model.streamer_plan import StreamerChanges
from lectern.states import FileState
from lectern.storage import cache_dir
from lectern.storage.cache_dir import FoundFile
from lectern.storage.origin import RemoteFile

UNKNOWN_S = 300.0  # seconds after its end in which a class waits for the playout to say how it was aired
OVER_S = 30.0  # seconds after its end after which a class that is not aired is closed: its citation is taken back


@flow(name="sweep streamer", persist_result=False, result_storage=NOWHERE)
async def sweep_streamer(dry_run: bool = False) -> State[None]:
    """Send reports again, take up evictions that nobody does, close classes that are over."""
    return await sweep_flow(current.get(), _sweep, dry_run)


async def _sweep(host: StreamerHost, dry_run: bool) -> Swept:
    evicting = [row.stem for row in await host.read_tx(cache.evicting)]
    over = await host.read_tx(airings.over, time.time() - OVER_S)
    ways = [(airing, way) for airing in over if (way := await _way(host, airing)) is not None]
    text = f"{len(evicting)} evictions, {len(over)} past their end"
    more = [f"{stem}: its file is removed" for stem in evicting]
    if dry_run:
        return [await changed(host, way, dry_run=True) for _, way in ways], text, more
    done: list[StreamerChanges] = []
    for airing, way in ways:
        async with isolated(host, Text("class {class_id}", class_id=airing.class_id)):  # one odd row holds up no other
            done.append(await changed(host, way))
    if evicting:
        await disk_answers(host)
        async with host.cache_lock:  # while the playout was asked, one may have been downloaded again
            await remove_files(host, [row.stem for row in await host.read_tx(cache.evicting)])
    return done, text, more


async def _way(host: StreamerHost, airing: Airing) -> Decide[StreamerChanges] | None:
    """How to close a class whose end was not recorded: as the playout reports it.

    None while the playout is away, or refuses to say it, and is still waited for.
    """
    root = host.settings.video_root
    try:
        statuses = (await host.playout.ask("status", class_id=airing.class_id))["classes"]
    except TryAgain:
        return None if time.time() - airing.end_time < UNKNOWN_S else playout_events.closing_of_late(airing.class_id)
    is_of_row = playout_events.is_of_row
    if statuses and statuses[0]["state"] == "ended" and is_of_row(root, airing, statuses[0], time.time()):
        return playout_events.closing_of(airing.class_id, statuses[0])
    return playout_events.closing_of_late(airing.class_id, is_known=not statuses)


@flow(name="reconcile", persist_result=False, result_storage=NOWHERE)
async def reconcile(dry_run: bool = False) -> State[None]:
    """Scan the disk; unknown files go to quarantine, missing ones are downloaded again if a class needs them."""
    host: StreamerHost = current.get()
    table = await reconciled(host, dry_run=dry_run)
    table += [] if dry_run else await read_again(host)
    await artifacts.table("reconcile", table, "What the disk and the database disagreed about")
    return Completed(message=f"{len(table)} differences")


async def reconciled(host: StreamerHost, *, dry_run: bool = False) -> list[dict[str, object]]:
    """Make the disk and the database agree; returns a row for each difference. With *dry_run*, only look.

    Files that were written to are left to `read_again`. Raises TryAgain if the disk hangs.
    """
    root = host.settings.video_root
    await disk_answers(host)
    entries = await cache_dir.in_thread(cache_dir.scan, root)  # for minutes, perhaps, and no class waits for it
    async with host.cache_lock:
        files, rows = await host.read_tx(doubtful, entries)
        odd = await cache_dir.in_thread(lasting, differences(files, rows), root)
        if dry_run:
            return [{"what": difference.words(), "done": "nothing: a dry run"} for difference in odd]
        table = [await _mended(host, difference) for difference in odd if difference.odd is not Odd.TOUCHED]
        await host.write_tx(_agree, host, files, rows)
    host.touched = [difference for difference in odd if difference.odd is Odd.TOUCHED]
    here = [file.stem for file in files if file.stem in rows and file.kind == "rendition"]
    await _measure(host, [stem for stem in here if rows[stem].duration_s is None])
    return table


async def prune_quarantine(host: StreamerHost) -> None:
    """Delete the files that the quarantine keeps too long, or has no room for."""
    bound = host.settings.max_bytes * cache_dir.QUARANTINE_SHARE
    for gone in await cache_dir.in_thread(cache_dir.prune_quarantine, host.settings.video_root, bound, time.time()):
        path = formatting.path(gone.path)
        log.warning("%s: deleted from the quarantine, which is too full or keeps it too long", path)


async def read_again(host: StreamerHost) -> list[dict[str, object]]:
    """Read the files that were written to; that takes seconds for each GB, so no class waits for it."""
    if host.touched is None:  # the disk hung at the start
        await reconciled(host)
    return [await _mended(host, difference) for difference in host.touched or ()]


async def _mended(host: StreamerHost, difference: CacheDifference) -> dict[str, object]:
    """Repair one difference; returns a row that says what was done. A failure holds up none of the others."""
    with Caught(OperationalError) as failed:
        return {"what": difference.words(), "done": await _mend(host, difference)}
    log.error("%s: the disk and the database still disagree: %s", difference.words(), failed.error)
    return {"what": difference.words(), "done": f"not mended: {failed.error}"}


async def _mend(host: StreamerHost, difference: CacheDifference) -> str:
    root = host.settings.video_root
    match difference:
        case CacheDifference(Odd.LEFT, _, Path() as path) if integrity.is_at_work(path):
            return "nothing: it is just being made"
        case CacheDifference(Odd.LEFT, _, Path() as path):
            await cache_dir.in_thread(cache_dir.remove, path)
            return "deleted"
        case CacheDifference(Odd.ARRIVED, Cached() as row) if row.stem in host.in_progress:
            return "nothing: its download is about to note it"
        case CacheDifference(Odd.ARRIVED, Cached() as row, Path() as path):
            return await _take(host, row.stem, path)
        case CacheDifference(Odd.RESIZED, Cached() as row, Path() as path):
            return await _replace(host, row, path, difference.why)
        case CacheDifference(Odd.MISSING, Cached() as row):
            why = Text("it is not on the disk")
            if row.site not in {None, str(cache_dir.rendition_path(root, row.stem))}:  # former root
                why = Text("it is not on the disk, it was at {site}", site=row.site)
            return "it is downloaded again" if await downloads.fetch_again(host, row, why) else "nobody needs it"
        case CacheDifference(Odd.TOUCHED, Cached() as row, Path() as path):
            return await _read(host, row.stem, path)
        case CacheDifference(Odd.UNKNOWN, _, Path() as path):
            log.warning("%s: no row knows it; it is moved to quarantine", formatting.path(path))
            await cache_dir.in_thread(cache_dir.quarantine, root, path)
            return "moved to quarantine"
    raise AssertionError(f"{difference.odd}: no way to mend it")


async def _read(host: StreamerHost, stem: str, path: Path) -> str:
    """Read a file that was written to, without the lock; decide under the lock, if it is still the same file."""
    try:
        mtime = (await cache_dir.in_thread(path.stat)).st_mtime
        before = await host.read_tx(cache.by_stem, [stem])  # those before it may have taken hours
        why = await integrity.trouble(path, before[stem]) if stem in before else None
        async with host.cache_lock:
            row = (await host.read_tx(cache.by_stem, [stem])).get(stem)
            is_same = (await cache_dir.in_thread(path.stat)).st_mtime == mtime
            if row is not None and row.state is FileState.READY and is_same:
                if why is not None:
                    return await _replace(host, row, path, why)
                await host.write_tx(cache.seen, [(row.stem, row.size_bytes, mtime)])
                return "it is whole"
    except FileNotFoundError:
        pass  # while it was read
    return "nothing: it was evicted, or replaced"


async def _take(host: StreamerHost, stem: str, path: Path) -> str:
    """Take a file whose process died between putting it in its place and noting that; delete it if it is not whole."""
    row = (await host.read_tx(cache.by_stem, [stem])).get(stem)
    if row is None or row.state is not FileState.DOWNLOADING:  # while the differences before it were mended
        return "nothing: its download has noted it"
    part = cache_dir.part_path(host.settings.video_root, row.stem)
    remote = cache_dir.read_origin(part) or RemoteFile(row.url or "", row.size_bytes, None, None)
    try:
        probed = await downloads.checked(row.stem, path, remote)
        await changed(host, downloads.arrived(row.stem, remote, probed))
    except LecternError as error:
        log.warning("%s: %s", row.stem, error.message)
        await cache_dir.in_thread(cache_dir.remove, path)
        return "deleted, and downloaded again: it is not whole"
    return "taken: it is whole"


async def _replace(host: StreamerHost, row: Cached, path: Path, why: str) -> str:
    await cache_dir.in_thread(cache_dir.quarantine, host.settings.video_root, path)
    again = await downloads.fetch_again(host, row, why)
    return f"moved to quarantine: {why}{'; it is downloaded again' if again else ''}"


def _agree(connection: Connection, host: StreamerHost, files: Sequence[FoundFile], rows: Mapping[str, Cached]) -> None:
    """Note the size and time of the files whose rows lack one, and count the citations anew."""
    new: list[tuple[str, int, float]] = []
    for file in files:
        row = rows.get(file.stem or "") if file.kind == "rendition" else None
        if row is not None and row.state is FileState.READY and (row.mtime is None or not row.size_bytes):
            new.append((row.stem, file.size_bytes, file.mtime))
    cache.seen(connection, new)
    cache.recount(connection, host.settings.video_root, airings.citations(connection))


async def _measure(host: StreamerHost, stems: Sequence[str]) -> None:
    """Measure the recordings whose old rows have no duration, which is needed to air from the middle."""
    for stem in stems:
        path = cache_dir.rendition_path(host.settings.video_root, stem)
        if not await cache_dir.in_thread(path.exists):
            continue  # it was put aside or deleted a moment ago, and the log says so
        try:
            probed = await probe.probe(path)
        except LecternError as error:
            log.warning("%s: %s", stem, error.message)
            continue
        await host.write_tx(cache.measured, stem, probed.duration_s)
