"""A recording is downloaded once for all classes that cite it; then all of them are answered together."""

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import stamina
from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from sqlalchemy import Connection

from flows import show
from flows.handling import Decide, changed
from flows.host import NOWHERE, Streamer, log, streamer
from flows.streamer import admission, looks, lost
from flows.streamer.prepare import follow
from flows.tell import tell
from lectern import errors
from lectern.decide import endings
from lectern.effects import process
from lectern.effects.files import disk, origin, store, wget
from lectern.effects.files.origin import RemoteFile
from lectern.effects.media import airable, probe
from lectern.effects.media.probe import Probe
from lectern.effects.rows import airings, cache, plans
from lectern.errors import LecternError, Refuse, TryAgain
from lectern.facts import Cached
from lectern.places import Places
from lectern.playout.index import Look
from lectern.shown import shown
from lectern.states import AiringState, FileState
from lectern.streamer_changes import StreamerChanges
from lectern.timing import backoff_s

SYNC_BYTES = 64 * 1024**2
"""Number of bytes that a download grows by until it is synced to the disk."""

FIRST_PAUSE_S, LAST_PAUSE_S = 2.0, 1200.0
ON_AIR_PAUSE_S = 60.0
"""Longest pause between two tries while a class on air lacks the recording."""

LOOKS_AGAIN = 3
MAX_RUNS = 10
"""Number of runs that crashed or were killed after which a download is given up: it may be what kills its process."""


@flow(name="download", persist_result=False, result_storage=NOWHERE)
async def download(stem: str, dry_run: bool = False) -> State[None]:
    """Download a rendition that is reserved, check it, put it in place, answer the classes that wait for it."""
    host = streamer()
    row = (await host.look(cache.by_stem, [stem])).get(stem)
    if row is None or row.state is not FileState.DOWNLOADING or stem in host.busy:
        return Completed(message="nothing to do: there already, given up, or another run is at it")
    if dry_run:
        return Completed(message=f"dry run: would download {shown(row.url or 'a recording without a URL')}")
    host.busy.add(stem)
    try:
        runs = await host.commit(plans.tried, stem)
        if runs == 0:
            return Completed(message="nothing to do: no class needs it any more, and its room went to another")
        if runs > MAX_RUNS:
            raise Refuse(f"{stem}: given up after {MAX_RUNS} runs; see their logs", errors.DOWNLOAD_FAILED)
        remote, found = await _come(host, stem) or await _fetched(host, stem)
        host.fetched[stem] = remote, found
        changes = await changed(host, arrived(stem, remote, found))
        del host.fetched[stem]
    except LecternError as error:
        await give_up(host, stem, error)
        return Failed(message=f"{stem}: {error.message}")
    except asyncio.CancelledError:
        if runtime.flow_run.id is not None and host.runs.was_cancelled(str(runtime.flow_run.id)):
            await asyncio.shield(give_up(host, stem, cancelled(stem)))
        raise
    finally:
        host.busy.discard(stem)
        host.unfetched.set()
    await tell(host)
    follow(host, changes)
    return Completed(message=f"{found.size_bytes} bytes for {len(changes.ready)} classes")


def cancelled(stem: str) -> Refuse:
    """The error that refuses the classes of a download whose run a person cancelled."""
    return Refuse(f"the download of {stem} was cancelled in the UI", errors.CANCELLED)


async def give_up(host: Streamer, stem: str, error: LecternError) -> None:
    """Refuse the classes that wait for a download, and delete its part file with its reservation."""
    host.fetched.pop(stem, None)
    follow(host, await changed(host, failed(stem, error)))
    part = store.part_path(host.settings.video_root, stem)
    try:
        await asyncio.to_thread(store.remove, part)
    except OSError as left:
        log.warning("%s: cannot be deleted, the next start of the streamer tries again: %s", part, left)
    await tell(host)


async def _come(host: Streamer, stem: str) -> tuple[RemoteFile, Probe] | None:
    """What an earlier run has put in its place, and could not note because the database took nothing; else None."""
    remote, found = host.fetched.pop(stem, (None, None))
    if remote is None or found is None:
        return None
    final = store.rendition_path(host.settings.video_root, stem)
    return (remote, found) if await asyncio.to_thread(store.size_bytes, final) == found.size_bytes else None


async def _fetched(host: Streamer, stem: str) -> tuple[RemoteFile, Probe]:
    """Download; while a class on air lacks the recording, try again whatever was wrong, until its end."""
    tries = 0
    while True:
        on_air = bool(await host.look(lost.on_air, stem, time.time()))
        try:
            return await _tried(host, stem, ON_AIR_PAUSE_S if on_air else LAST_PAUSE_S)
        except LecternError as error:
            if not await host.look(lost.on_air, stem, time.time()):
                raise
            pause_s = backoff_s(tries, FIRST_PAUSE_S, ON_AIR_PAUSE_S)
            log.warning("%s: a class on air lacks it, again in %.0f s: %s", stem, pause_s, error.message)
            if tries == 0:
                await changed(host, partial(lost.alarm_on_air, stem=stem, why=error.message))
                await tell(host)
        await asyncio.sleep(pause_s)
        tries += 1


async def _tried(host: Streamer, stem: str, longest_pause_s: float) -> tuple[RemoteFile, Probe]:
    """Download until the file is there; the pauses between the tries double."""
    tries = host.settings.download_tries
    async for attempt in stamina.retry_context(
        on=TryAgain, attempts=tries, timeout=None, wait_initial=FIRST_PAUSE_S, wait_max=longest_pause_s
    ):
        with attempt:
            return await _fetch(host, stem)
    raise AssertionError("the last attempt returns or raises")


async def _fetch(host: Streamer, stem: str) -> tuple[RemoteFile, Probe]:
    """One try: look at the origin, resume or begin, check length, CRC-64 and pictures, rename into place."""
    row = (await host.look(cache.by_stem, [stem]))[stem]
    settings = host.settings
    final = store.rendition_path(settings.video_root, stem)
    part = store.part_path(settings.video_root, stem)
    remote = await looks.of_download(host, row)
    # The old program noted no sizes, and a file that was made plain FLV has another size than its origin.
    if remote.size_bytes and remote.size_bytes != row.size_bytes:
        await _resize(host, row, remote.size_bytes)
        row = (await host.look(cache.by_stem, [stem]))[stem]
    if remote.size_bytes != row.size_bytes:
        raise Refuse(f"{stem}: the origin does not say its length any more", errors.DOWNLOAD_FAILED)
    goes_on = await asyncio.to_thread(_begin, part, remote)
    async with show.Progress(f"download-{stem}", f"download {stem}, {row.size_bytes} bytes") as bar:
        growing = Growing(part, remote)

        def on_progress(size_bytes: int) -> None:
            bar.set(100 * size_bytes / max(row.size_bytes, 1))
            growing.reached(size_bytes)

        try:
            limits = wget.Limits(settings.download_rate, settings.download_timeout_s, row.size_bytes)
            await wget.download(settings.wget_path, remote, part, limits, on_progress)
        finally:
            await process.surely(growing.close())
        if goes_on and remote.crc64 is None:
            await _of_one_recording(host, stem, part, remote)
        found = await _check(stem, part, remote)
        look, plain = await _airable(part)
        if plain != part:  # from here on its size and its sum are not the origin's
            found, remote = await probe.probe(plain), replace(remote, crc64=None, etag=None)
            if found.size_bytes > row.size_bytes:
                await _resize(host, row, found.size_bytes)
        bar.set(100)
    await asyncio.to_thread(_finish, part, plain, final, look)
    return remote, found


async def _airable(part: Path) -> tuple[Look, Path]:
    """The playout's view of the recording, and a file that it can air; raises Refuse if there is none."""
    try:
        return await airable.looked(part)
    except Refuse:
        part.unlink()
        raise


async def _resize(host: Streamer, row: Cached, size_bytes: int) -> None:
    """Make room for a download, or its plain FLV file, of *size_bytes*; raises Refuse with 316 if it does not fit."""
    async with host.cache_lock:
        await changed(host, partial(admission.sized, before=row, size_bytes=size_bytes))


def _begin(part: Path, remote: RemoteFile) -> bool:
    """Prepare the part file; returns whether the download goes on with the bytes of an earlier try."""
    with disk.writing(str(part)):
        return store.resume(part, remote)


async def _of_one_recording(host: Streamer, stem: str, part: Path, remote: RemoteFile) -> None:
    """Delete what came in several tries if the recording was replaced before the last one; raises TryAgain then.

    Origins of several servers may name the file differently at each look: one look that finds the same is enough.
    """
    settings = host.settings
    allowed = Places.listed(settings.allowed_origins)
    for _ in range(LOOKS_AGAIN):
        again = await origin.look(remote.url, allowed=allowed, timeout_s=settings.http_timeout_s)
        if again.promise == remote.promise:
            return
    await asyncio.to_thread(store.remove, part)
    raise TryAgain(f"{stem}: was replaced at its origin while it was downloaded", errors.DOWNLOAD_FAILED)


async def _check(stem: str, part: Path, remote: RemoteFile) -> Probe:
    """Length, CRC-64, pictures; a bad file is deleted, so that the next try begins from zero."""
    size = await asyncio.to_thread(lambda: part.stat().st_size)
    if size != remote.size_bytes:
        raise TryAgain(f"{stem}: {size} bytes came of {remote.size_bytes}", errors.DOWNLOAD_FAILED)
    if remote.crc64 is not None:
        crc64 = await asyncio.to_thread(store.crc64, part)
        if crc64 != remote.crc64:
            part.unlink()
            raise TryAgain(f"{stem}: CRC-64 is {crc64}, the origin says {remote.crc64}", errors.BAD_RECORDING)
    try:
        found = await probe.probe(part)
    except Refuse:
        part.unlink()
        raise
    if not found.last_second_decodes:
        part.unlink()
        raise Refuse(f"{stem}: its end cannot be decoded", errors.BAD_RECORDING)
    return found


def _finish(part: Path, plain: Path, final: Path, look: Look) -> None:
    with disk.writing(str(final)):
        store.finish(plain, final)
        if plain != part:
            store.remove(part)
    try:
        airable.write_index(look, final)
    except Refuse:  # its classes are refused, so nobody would count the file
        with suppress(OSError):
            store.remove(final)
        raise


def arrived(stem: str, remote: RemoteFile, found: Probe) -> Decide[StreamerChanges]:
    """How to note that a download is in its place: its classes become ready, but for those that have ended."""

    def go(connection: Connection, changes: StreamerChanges) -> None:
        row = cache.by_stem(connection, [stem])[stem]
        if row.state is not FileState.DOWNLOADING:
            return  # a start, or a person who reconciled, has noted it before
        its = {"duration_s": found.duration_s, "etag": remote.etag, "mtime": found.mtime}
        changes.arrive(row, found.size_bytes, remote.crc64, **its)
        for one in airings.citing(connection, stem, {AiringState.WAITING}):
            if one.end_time > changes.now:
                changes.report("prepared", changes.move(one, AiringState.READY), message="downloaded")
            elif not one.lost:  # how much of a class was aired that had its file before, the playout reports
                endings.close_late(changes, one)
        changes.note("downloaded", detail=f"{found.size_bytes} bytes, {found.duration_s:.1f} s", stem=stem)

    return go


def failed(stem: str, error: LecternError) -> Decide[StreamerChanges]:
    """How to note that a download is given up: its classes are refused."""

    def go(connection: Connection, changes: StreamerChanges) -> None:
        row = cache.by_stem(connection, [stem]).get(stem)
        if row is None or row.state is not FileState.DOWNLOADING:
            return  # it is finished, or was given up before
        code = error.code or errors.DOWNLOAD_FAILED
        lost.refuse(connection, changes, stem, error)
        changes.fail(row, error.message)
        changes.note("download failed", detail=f"{code.number}: {error.message}", stem=stem)

    return go


class Growing:
    """A download under way, synced to the disk now and then: a power cut costs no more than what came since."""

    def __init__(self, part: Path, remote: RemoteFile) -> None:
        self._part, self._remote = part, remote
        self._synced_bytes: int | None = None
        self._syncing: asyncio.Future[None] | None = None

    def reached(self, size_bytes: int) -> None:
        """Note that the download has *size_bytes* now."""
        if self._synced_bytes is None:
            self._synced_bytes = size_bytes
        busy = self._syncing is not None and not self._syncing.done()
        if not busy and size_bytes - self._synced_bytes >= SYNC_BYTES:
            self._synced_bytes = size_bytes
            self._syncing = asyncio.ensure_future(asyncio.to_thread(store.write_origin, self._part, self._remote))

    async def close(self) -> None:
        """Wait for the sync under way; if it failed, only less of the download is safe from a power cut."""
        if self._syncing is not None:
            await asyncio.wait({self._syncing})
            if (error := self._syncing.exception()) is not None:
                log.warning("%s: could not be synced: %s", self._part, error)
