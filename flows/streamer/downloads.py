"""Downloads each recording once for all classes that cite it, in the order of their starts, and again if it is lost."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import stamina
from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from flows import artifacts, failures
from flows.handling import SWEEP, changed, decision
from flows.host import NOWHERE, StreamerHost, current, log
from flows.outbox_publisher import publish_outbox
from flows.prefect_api import Begun, NewRun, cancelled_runs
from flows.streamer import bandwidth, prepare
from flows.streamer.prepare import follow
from lectern import errors, rendition_ids
from lectern.db import airings, cache
from lectern.decide import readiness as decide
from lectern.decide.bandwidth import Bounds, Turn, turns
from lectern.errors import LecternError, Refuse, TryAgain
from lectern.i18n import Text, labelled, msgid
from lectern.media import integrity, probe
from lectern.media.probe import Probe
from lectern.model.facts import Airing, Cached
from lectern.model.streamer_plan import StreamerChanges
from lectern.playout.keyframe_index import Look
from lectern.states import LIVE_AIRINGS, AiringState, FileState
from lectern.storage import cache_dir, disk
from lectern.storage.origin import RemoteFile
from lectern.timing import backoff_s, comes
from lectern.urls import redact_url


async def redownload(host: StreamerHost, stem: str, why: str, *, seen_at: float | None = None) -> bool:
    """Put what there is of a rendition aside and download it again; returns whether it did.

    *seen_at* is when the playout found that it cannot push the file (epoch seconds); a file that was put there since
    stays, as the playout looks for it by itself. If None, nothing is done while a class is pushed from the file, or if
    it is well by now: another run may have repaired it meanwhile. Raises TryAgain if the disk hangs.
    """
    path = cache_dir.rendition_path(host.settings.video_root, stem)
    await prepare.disk_answers(host)
    async with host.cache_lock:
        row = (await host.read_tx(cache.by_stem, [stem])).get(stem)
        pushed = await host.read_tx(airings.citing, stem, {AiringState.ON_AIR})
        if row is None or row.state is not FileState.READY or (pushed and seen_at is None):
            return False
        if await _is_well(path, row, seen_at):
            log.info("%s: is well by now, it stays", stem)
            return False
        try:
            if await cache_dir.in_thread(path.exists):
                await cache_dir.in_thread(cache_dir.quarantine, host.settings.video_root, path)
        except OSError as error:
            log.error("%s: its file cannot be put aside: %s", stem, error)
        await fetch_again(host, row, why)
    await publish_outbox(host)
    return True


async def _is_well(path: Path, row: Cached, seen_at: float | None) -> bool:
    if seen_at is not None:
        with suppress(OSError):  # by the time of its renaming: wget gives it the origin's modification time
            return (await cache_dir.in_thread(path.stat)).st_ctime > seen_at
        return False
    return await integrity.seen(path, row) == (row.size_bytes, None)


async def fetch_again(host: StreamerHost, row: Cached, why: str) -> bool:
    """Reserve a second download of *row* if classes need it; returns whether they do."""
    changes = await changed(host, partial(lose_file, row=row, why=why))
    follow(host, changes)
    return bool(changes.reserved)


def lose_file(connection: Connection, changes: StreamerChanges, row: Cached, why: str) -> None:
    """Forget the file of *row*, which is lost as *why* says."""
    citing = [class_ for class_ in airings.citing(connection, row.stem, LIVE_AIRINGS) if class_.cites]
    log.warning("%s: its file is lost: %s; %d classes need it", row.stem, why, len(citing))
    decide.fetch_again(changes, row, airings.latest_url(connection, row.stem) or row.url, citing, why)


def classes_on_air(connection: Connection, stem: str, now: float) -> list[Airing]:
    """The classes that should be on air at *now* with the rendition, and that had it, or go on without it."""
    citing = airings.citing(connection, stem, {AiringState.ON_AIR, AiringState.WAITING})
    promised = [class_ for class_ in citing if class_.lost or class_.state is AiringState.ON_AIR]
    return [class_ for class_ in promised if class_.start_time <= now < class_.end_time]


@decision
def alarm_on_air(connection: Connection, changes: StreamerChanges, stem: str, why: str) -> None:
    """Raise an alarm for the classes that are on air without their recording, which cannot be had now."""
    decide.alarm_on_air(changes, classes_on_air(connection, stem, changes.now), why)


FIRST_PAUSE_S, LAST_PAUSE_S = 2.0, 1200.0
ON_AIR_PAUSE_S = 60.0  # longest pause between two tries while a class on air lacks the recording
LOOKS_AGAIN = 3
MAX_RUNS = 10
"""Number of runs that crashed or were killed after which a download is given up: it may be what kills its process."""


@flow(name="download", persist_result=False, result_storage=NOWHERE)
async def download(stem: str, dry_run: bool = False) -> State[None]:
    """Download a rendition that is reserved, check it, put it in place, answer the classes that wait for it."""
    host: StreamerHost = current.get()
    row = (await host.read_tx(cache.by_stem, [stem])).get(stem)
    if row is None or row.state is not FileState.DOWNLOADING or stem in host.in_progress:
        return Completed(message="nothing to do: there already, given up, or another run is at it")
    if dry_run:
        return Completed(message=f"dry run: would download {redact_url(row.url or 'a recording without a URL')}")
    host.in_progress.add(stem)
    try:
        runs = await host.write_tx(airings.tried, stem)
        if runs == 0:
            return Completed(message="nothing to do: no class needs it any more, and its room went to another")
        if runs > MAX_RUNS:
            raise Refuse(
                "{stem}: given up after {max_runs} runs; see their logs",
                errors.DOWNLOAD_FAILED,
                stem=stem,
                max_runs=MAX_RUNS,
            )
        remote, probed = await _fetched(host, stem)
        changes = await _noted(host, stem, remote, probed)
    except LecternError as error:
        await give_up(host, stem, error)
        return Failed(message=labelled(stem, error.message))
    except asyncio.CancelledError:
        if runtime.flow_run.id is not None and host.runs.was_cancelled(str(runtime.flow_run.id)):
            await asyncio.shield(give_up(host, stem, cancelled(stem)))
        else:
            with suppress(DBAPIError):  # the disk may be full: then it counts
                await asyncio.shield(host.write_tx(airings.untried, stem))
        raise
    finally:
        host.in_progress.discard(stem)
        host.unfetched.set()
    await publish_outbox(host)
    follow(host, changes)
    return Completed(message=f"{probed.size_bytes} bytes for {len(changes.ready)} classes")


def cancelled(stem: str) -> Refuse:
    """The error that refuses the classes of a download whose run a person cancelled."""
    return Refuse("the download of {stem} was cancelled in the UI", errors.CANCELLED, stem=stem)


async def give_up(host: StreamerHost, stem: str, error: LecternError) -> None:
    """Refuse the classes that wait for a download, and delete its part file with its reservation."""
    follow(host, await changed(host, failed(stem, error)))
    part = cache_dir.part_path(host.settings.video_root, stem)
    try:
        await cache_dir.in_thread(cache_dir.remove, part)
    except OSError as left:
        log.warning("%s: cannot be deleted, the next start of the streamer tries again: %s", part, left)
    await publish_outbox(host)


async def _fetched(host: StreamerHost, stem: str) -> tuple[RemoteFile, Probe]:
    """Download; while a class on air lacks the recording, try again whatever was wrong, until its end."""
    tries = 0
    while True:
        on_air = await host.read_tx(classes_on_air, stem, time.time())
        most_s = ON_AIR_PAUSE_S if on_air else LAST_PAUSE_S
        attempts = host.settings.download_tries
        again = stamina.AsyncRetryingCaller(attempts, timeout=None, wait_initial=FIRST_PAUSE_S, wait_max=most_s)
        try:
            return await again(TryAgain, _fetch, host, stem, iter(range(attempts)[::-1]))
        except LecternError as error:
            if not await host.read_tx(classes_on_air, stem, time.time()):
                raise
            pause_s = backoff_s(tries, FIRST_PAUSE_S, ON_AIR_PAUSE_S)
            log.warning("%s: a class on air lacks it, again in %.0f s: %s", stem, pause_s, error.message)
            if tries == 0:
                await changed(host, alarm_on_air(stem, error.message))
                await publish_outbox(host)
        await asyncio.sleep(pause_s)
        tries += 1


async def _fetch(host: StreamerHost, stem: str, left: Iterator[int] | None = None) -> tuple[RemoteFile, Probe]:
    """One try: look at the origin, resume or begin, check length, CRC-64 and pictures, rename into place.

    *left* gives how many more there are: the last one begins anew at another origin if its own is still away.
    """
    row = (await host.read_tx(cache.by_stem, [stem]))[stem]
    settings = host.settings
    final = cache_dir.rendition_path(settings.video_root, stem)
    part = cache_dir.part_path(settings.video_root, stem)
    is_last = left is not None and next(left) == 0
    came = None if is_last else await cache_dir.in_thread(cache_dir.read_origin, part)
    remote = await prepare.of_download(host, row, came)
    # The old program noted no sizes, and a file that was made plain FLV has another size than its origin.
    if remote.size_bytes and remote.size_bytes != row.size_bytes:
        await _resize(host, row, remote.size_bytes)
        row = (await host.read_tx(cache.by_stem, [stem]))[stem]
    if remote.size_bytes != row.size_bytes:
        raise Refuse("{stem}: the origin does not say its length any more", errors.DOWNLOAD_FAILED, stem=stem)
    with disk.writing(str(part)):
        goes_on = await cache_dir.in_thread(cache_dir.resume, part, remote)
    async with artifacts.ProgressBar(f"download-{stem}", f"download {stem}, {row.size_bytes} bytes") as bar:

        def on_progress(size_bytes: int) -> None:
            bar.set(100 * size_bytes / max(row.size_bytes, 1))

        try:
            goes_on |= await bandwidth.download(host, stem, row.size_bytes, remote, on_progress)
        except Refuse as refused:
            if refused.code is errors.DOWNLOAD_FAILED:  # such as a recording that is longer now
                await _of_one_recording(host, row, part, remote)
            raise
        came_at = time.monotonic()
        if goes_on and remote.crc64 is None:
            await _of_one_recording(host, row, part, remote)
        try:
            probed = await checked(stem, part, remote)
            look, plain = await integrity.looked(part)  # the playout's view of it, and a file that it can air
        except Refuse:  # the next try begins from zero
            await cache_dir.in_thread(part.unlink)
            raise
        if plain != part:  # from here on its size and its sum are not the origin's
            probed, remote = await probe.probe(plain), replace(remote, crc64=None, etag=None)
            if probed.size_bytes != row.size_bytes:  # by its row it is known for whole if this process dies now
                await _resize(host, row, probed.size_bytes)
        bar.set(100)
    await cache_dir.in_thread(_finish, part, plain, final, look)
    host.checks.append((time.monotonic() - came_at, row.size_bytes))
    return remote, probed


async def _noted(host: StreamerHost, stem: str, remote: RemoteFile, probed: Probe) -> StreamerChanges:
    """Note what is in its place as soon as the database takes it: its class may begin before it came again."""
    while True:
        try:
            return await changed(host, arrived(stem, remote, probed))
        except OperationalError as error:
            await failures.report(host, Text("the download of {stem}", stem=stem), error, AGAIN_S)
        await asyncio.sleep(AGAIN_S)


async def _resize(host: StreamerHost, row: Cached, size_bytes: int) -> None:
    """Make room for a download, or its plain FLV file, of *size_bytes*; raises Refuse with 316 if it does not fit."""
    async with host.cache_lock:
        await prepare.disk_answers(host)
        changes = await changed(host, partial(prepare.sized, before=row, size_bytes=size_bytes))
        # Before the download goes on, which may need their room.
        if changes.evicted:
            await prepare.remove_files(host, [gone.stem for gone in changes.evicted])


async def _of_one_recording(host: StreamerHost, row: Cached, part: Path, remote: RemoteFile) -> None:
    """Delete what has come of a recording if it was replaced since *remote* was promised; raises TryAgain then.

    Origins of several servers may name the file differently at each look: one look that finds the same is enough. Each
    begins at the URL of a booking: where that redirected to may be valid only for a while.
    """
    for _ in range(LOOKS_AGAIN):
        if (await prepare.of_download(host, row, remote)).promise == remote.promise:
            return
    await cache_dir.in_thread(cache_dir.remove, part)
    text = msgid("{stem}: was replaced at its origin while it was downloaded")
    raise TryAgain(text, errors.DOWNLOAD_FAILED, stem=row.stem)


async def checked(stem: str, part: Path, remote: RemoteFile) -> Probe:
    """Length, CRC-64, pictures; raises Refuse for a bad file. One that has another sum is deleted: TryAgain."""
    size = await cache_dir.in_thread(lambda: part.stat().st_size)
    if size != remote.size_bytes:
        raise TryAgain(
            "{stem}: {size} bytes came of {size_bytes}",
            errors.DOWNLOAD_FAILED,
            stem=stem,
            size=size,
            size_bytes=remote.size_bytes,
        )
    if remote.crc64 is not None:
        crc64 = await cache_dir.in_thread(cache_dir.crc64, part)
        if crc64 != remote.crc64:
            await cache_dir.in_thread(part.unlink)
            raise TryAgain(
                "{stem}: CRC-64 is {crc64}, the origin says {other_crc64}",
                errors.BAD_RECORDING,
                stem=stem,
                crc64=crc64,
                other_crc64=remote.crc64,
            )
    probed = await probe.probe(part)
    if not probed.last_second_decodes:
        raise Refuse("{stem}: its end cannot be decoded", errors.BAD_RECORDING, stem=stem)
    return probed


def _finish(part: Path, plain: Path, final: Path, look: Look) -> None:
    with disk.writing(str(final)):
        cache_dir.finish(plain, final)
        if plain != part:
            cache_dir.remove(part)
    try:
        integrity.write_index(look, final)
    except (Refuse, OSError) as error:  # it can be aired without one, and gets one as soon as there is room
        log.error("%s: its index is not written down, it is made again: %s", final.stem, error)


@decision
def arrived(connection: Connection, changes: StreamerChanges, stem: str, remote: RemoteFile, probed: Probe) -> None:
    """Note that a download is in its place: its classes become ready.

    Those that have ended do not: they are closed by their playout's report, which may have their slate, or a sweep.
    """
    row = cache.by_stem(connection, [stem])[stem]
    if row.state is not FileState.DOWNLOADING:
        return  # a start, or a person who reconciled, has noted it before
    values = {"duration_s": probed.duration_s, "etag": remote.etag, "mtime": probed.mtime}
    changes.arrive(row, probed.size_bytes, remote.crc64, **values)
    for class_ in airings.citing(connection, stem, {AiringState.WAITING}):
        if class_.end_time > changes.now:
            changes.report("prepared", changes.move(class_, AiringState.READY), message=msgid("downloaded"))
    size = Text("{size:size}, {length_s:.1f} s", size=probed.size_bytes, length_s=probed.duration_s)
    changes.note("downloaded", detail=size, stem=stem)


@decision
def failed(connection: Connection, changes: StreamerChanges, stem: str, error: LecternError) -> None:
    """Note that a download is given up: its classes are refused."""
    row = cache.by_stem(connection, [stem]).get(stem)
    if row is None or row.state is not FileState.DOWNLOADING:
        return  # it is finished, or was given up before
    code = error.code or errors.DOWNLOAD_FAILED
    # Those on air go on without it.
    waiting = airings.citing(connection, stem, {AiringState.WAITING, AiringState.ON_AIR})
    decide.refuse_waiting(changes, waiting, code, error.message)
    changes.fail(row, error.message)
    changes.note("download failed", detail=labelled(code.number, error.message), stem=stem)


# The queue of downloads, which are rows that wait; a download gets a run only when it gets a place.

LOOK_S = 5.0  # seconds between two looks at the rows if no event asks for an earlier one
AGAIN_S = 5.0
"""Seconds until a download that ended without its file is restarted. At the start of a process, also the time in
which the run that the last process left may be resumed instead."""

BEGINS_S = 5.0
"""Seconds after which a download is done without its run, if Prefect took the run and does not let it begin."""


@dataclass
class _Begun:
    run: Begun
    was_busy: bool = False
    at: float = field(default_factory=time.monotonic)


class DownloadQueue:
    """Begins the downloads of a streamer, at most `max_downloads` at a time, first what must begin first."""

    def __init__(self, host: StreamerHost) -> None:
        self._host = host
        self._begun: dict[str, _Begun] = {}
        self._aside: dict[str, float] = {}  # until when a download is passed over, monotonic
        self._left: set[str] | None = None  # downloads with a run that the last process left, which may be resumed
        self._left_at = 0.0  # when they were looked for, monotonic

    async def run(self) -> None:
        """Begin downloads until cancelled."""
        while True:
            self._host.watchdog.beat("downloads")
            self._host.unfetched.clear()
            await self.step()
            now = time.monotonic()
            await comes(self._host.unfetched, min([LOOK_S, *(max(0.05, at - now) for at in self._aside.values())]))

    async def step(self) -> None:
        """Begin the downloads for which there is a place."""
        now = time.monotonic()
        for stem in [stem for stem, begun in self._begun.items() if self._is_over(stem, begun)]:
            del self._begun[stem]
            self._aside[stem] = now + AGAIN_S
        for stem, begun in list(self._begun.items()):
            if isinstance(begun.run, str) and not begun.was_busy and now - begun.at > BEGINS_S:
                why = "Prefect does not let its run begin"  # if it begins at last, all is done
                self._begun[stem] = _Begun(self._host.background.without(self._host.runs, _run(stem), why))
        self._aside = {stem: until for stem, until in self._aside.items() if until > now}
        if self._left is None:
            rows = await self._host.read_tx(cache.downloading)
            self._left, self._left_at = {row.stem for row in rows if row.run_id is not None}, now
        elif now - self._left_at >= AGAIN_S:
            self._left.clear()
        # A run that is resumed, or that a person began, was not begun here and downloads all the same.
        at_work = self._begun.keys() | self._left | (self._host.in_progress - {SWEEP})
        bounds, some = Bounds.of(self._host.settings), await bandwidth.under_way(self._host)
        turn = turns(some, bounds, self._host.shares.urgent, time.time())
        # Those that are at work and come later take no place: one whose class begins sooner must not wait for them.
        due = [stem for stem, its in turn.items() if its is not Turn.LATER and stem not in self._aside.keys() - at_work]
        next_ = [stem for stem in due[: bounds.number] if stem not in at_work]
        known = await self._host.read_tx(cache.by_stem, next_)
        waiting = [(stem, known[stem].run_id) for stem in next_ if stem in known]
        ended = await asyncio.gather(*(self._take_up(stem, run_id) for stem, run_id in waiting), return_exceptions=True)
        for (stem, _), error in zip(waiting, ended, strict=True):
            if isinstance(error, Exception):  # whatever it is, it is this recording's alone
                self._aside[stem] = time.monotonic() + AGAIN_S
                await failures.report(self._host, Text("the download of {stem}", stem=stem), error, AGAIN_S)

    def _is_over(self, stem: str, begun: _Begun) -> bool:
        if stem in self._host.in_progress:
            begun.was_busy = True
            return False
        if isinstance(begun.run, asyncio.Task):
            return begun.run.done()
        return begun.was_busy or not self._host.runs.is_at_work(begun.run)

    async def _take_up(self, stem: str, run_id: str | None) -> None:
        """Begin a download; if somebody cancelled its last run while no process was at that, give it up."""
        if run_id is not None and await cancelled_runs(self._host.runs, [run_id]):
            await give_up(self._host, stem, cancelled(stem))
        else:
            host = self._host
            with suppress(TryAgain):  # the process goes down
                begun = await host.background.start(host.runs, _run(stem))
                self._begun[stem] = _Begun(begun)
                if isinstance(begun, str):
                    await host.write_tx(airings.begun_by, stem, begun)


def _run(stem: str) -> NewRun:
    return NewRun("download", {"stem": stem}, f"download {stem}", [f"record:{rendition_ids.folder(stem)}"])
