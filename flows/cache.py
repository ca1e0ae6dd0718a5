"""Renditions on a streamer: classes are prepared in batches, recordings downloaded, the disk reconciled."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectException
from prefect.states import Completed
from sqlalchemy import Connection

from flows import artifacts, broadcast, download
from flows.host import Host, log, run_name, streamer, tell
from flows.outcome import summary
from lectern import errors
from lectern.decide import cache as decide
from lectern.decide.cache import Admit, Bound, Wanted
from lectern.effects import airings, cache, events, inbox, origin, outbox, store
from lectern.effects.events import Event
from lectern.effects.origin import Allowed, RemoteFile
from lectern.effects.outbox import Kind, Outgoing
from lectern.errors import ErrorCode, LecternError, Malformed
from lectern.facts import Idle
from lectern.messages import Prepare, Release, Report, parse
from lectern.settings import StreamerSettings
from lectern.states import AiringState, FileState

Streamer = Host[StreamerSettings]
LOOKS = 16
RELEASE_AGAIN_S = 1.0
RELEASE_TRIES = 3


@dataclass
class Batch:
    """What one run did, and what is to follow the commit."""

    table: list[dict[str, object]] = field(default_factory=list)
    ready: list[str] = field(default_factory=list)  # class_ids to be scheduled
    downloads: list[str] = field(default_factory=list)  # stems
    gone: list[Idle] = field(default_factory=list)  # evicted, their files still there
    stops: list[airings.Airing] = field(default_factory=list)

    def row(self, class_id: str, decision: str, detail: str = "") -> None:
        """One line of the batch's table."""
        self.table.append({"class": class_id, "decision": decision, "detail": detail})


@dataclass
class _Parsed:
    prepares: list[tuple[int, Prepare]] = field(default_factory=list)
    releases: list[tuple[inbox.Kept, Release]] = field(default_factory=list)
    bad: list[tuple[inbox.Kept, Malformed]] = field(default_factory=list)


@flow(name="prepare", flow_run_name=run_name, persist_result=False)
async def prepare(inbox_ids: list[int], dry_run: bool = False) -> State[None]:
    """Prepare and release the classes of *inbox_ids*: cite what is cached, reserve and download what is not."""
    host = streamer()
    parsed, cached = await host.commit(_read, host, inbox_ids)
    looked = await _look(host, parsed, cached)
    batch = Batch()
    if dry_run:
        return Completed(message=f"dry run: {len(parsed.prepares)} to prepare, {len(parsed.releases)} to release")
    async with host.cache_lock:
        await host.commit(_act, host, parsed, looked, batch)
        await remove_files(host, batch.gone)
    await tell(host)
    await follow(host, batch)
    await artifacts.table("prepare-batch", batch.table, "What became of each class")
    return Completed(message=summary(batch.table))


def _read(connection: Connection, host: Streamer, ids: list[int]) -> tuple[_Parsed, set[str]]:
    parsed = _Parsed()
    for kept in inbox.read(connection, host.journal, ids):
        try:
            message = parse(kept.body, (Prepare, Release))
        except Malformed as error:
            parsed.bad.append((kept, error))
            continue
        if isinstance(message, Prepare):
            parsed.prepares.append((kept.id, message))
        elif isinstance(message, Release):
            parsed.releases.append((kept, message))
    rows = cache.by_stem(connection, {one.stem for _, one in parsed.prepares})
    here = {stem for stem, row in rows.items() if row.state in (FileState.READY, FileState.DOWNLOADING)}
    return parsed, here


Looked = RemoteFile | LecternError


async def _look(host: Streamer, parsed: _Parsed, cached: set[str]) -> dict[str, Looked]:
    """How large each recording is that must be downloaded; one HEAD a rendition, a few at a time."""
    urls = {one.stem: one.video_url for _, one in parsed.prepares if one.stem not in cached}
    allowed = Allowed.parse(host.settings.allowed_origins)
    gate = asyncio.Semaphore(LOOKS)

    async def look(url: str) -> Looked:
        async with gate:
            try:
                return await origin.look(url, allowed=allowed, timeout_s=host.settings.http_timeout_s)
            except LecternError as error:
                return error

    found = await asyncio.gather(*(look(url) for url in urls.values()))
    return dict(zip(urls, found, strict=True))


def _act(connection: Connection, host: Streamer, parsed: _Parsed, looked: dict[str, Looked], batch: Batch) -> None:
    now = time.time()
    known = airings.by_id(connection, [one.class_id for _, one in parsed.prepares])
    fresh: dict[str, Prepare] = {}
    for _, one in parsed.prepares:
        if one.class_id in known:
            _prepared_again(connection, host, known[one.class_id], batch, now)
        else:
            fresh.setdefault(one.class_id, one)
    _admit(connection, host, list(fresh.values()), looked, batch, now)
    later = [kept.id for kept, one in parsed.releases if not _release(connection, host, kept, one, batch, now)]
    inbox.later(connection, host.journal, later, now + RELEASE_AGAIN_S)
    for kept, error in parsed.bad:
        inbox.bury(connection, host.journal, kept, error.message, host.settings.dead_letter_stream, now)
        batch.row(error.class_id or "?", "malformed", error.message)
    finished = [id_ for id_, _ in parsed.prepares] + [kept.id for kept, _ in parsed.releases if kept.id not in later]
    inbox.done(connection, host.journal, finished)


def _admit(
    connection: Connection,
    host: Streamer,
    fresh: Sequence[Prepare],
    looked: dict[str, Looked],
    batch: Batch,
    now: float,
) -> None:
    settings = host.settings
    rows = cache.by_stem(connection, {one.stem for one in fresh})
    states = {stem: row.state for stem, row in rows.items()}
    here = {stem for stem, state in states.items() if state in (FileState.READY, FileState.DOWNLOADING)}
    wanted: list[Wanted] = []
    by_class = {one.class_id: one for one in fresh}
    for one in fresh:
        found = looked.get(one.stem)
        if one.stem in here:
            wanted.append(Wanted(one.class_id, one.stem))
        elif isinstance(found, RemoteFile) and found.size_bytes is not None:
            wanted.append(Wanted(one.class_id, one.stem, found.size_bytes))
        else:
            code, why = _why_not(found)
            refuse(connection, host, one, code, why, batch, now)
    bound = Bound(settings.max_bytes, settings.max_video_num)
    usage = cache.usage(connection, settings.video_root)
    need = sum(one.size_bytes for one in wanted) + max(0, usage.size_bytes - bound.max_bytes)
    idle = cache.idle(
        connection,
        but=here & {one.stem for one in wanted},
        size_bytes=need,
        num=len(wanted) + max(0, usage.num - bound.max_num),
    )
    for admission in decide.admit(wanted, states, usage, bound, idle):
        cache.mark_evicting(connection, settings.video_root, admission.evictions)
        batch.gone.extend(admission.evictions)
        events.note(
            connection,
            host.journal,
            settings.name,
            [Event("evicted", stem=gone.stem) for gone in admission.evictions],
            now,
        )
        _cite(connection, host, by_class[admission.wanted.class_id], admission, batch, now)


def _cite(
    connection: Connection, host: Streamer, one: Prepare, admission: decide.Admission, batch: Batch, now: float
) -> None:
    site = store.rendition_path(host.settings.video_root, one.stem)
    if admission.admit is Admit.FULL:
        why = f"{one.stem} needs {admission.wanted.size_bytes} bytes; all that is cached is pinned by classes"
        refuse(connection, host, one, errors.DISK_FULL, why, batch, now)
        return
    if admission.admit is Admit.RESERVE:
        cache.reserve(
            connection, host.settings.video_root, one.stem, admission.wanted.size_bytes, one.video_url, site, now
        )
        batch.downloads.append(one.stem)
    cache.cite(connection, one.stem, 1, now)
    state = AiringState.READY if admission.admit is Admit.READY else AiringState.WAITING
    airings.add(connection, one, state, str(site), now)
    if state is AiringState.READY:
        report(connection, host, airings.prepared(one.class_id, host.settings.name, message="cached"), now)
        batch.ready.append(one.class_id)
    events.note(
        connection,
        host.journal,
        host.settings.name,
        [Event(f"prepare: {admission.admit}", one.class_id, one.stem)],
        now,
    )
    batch.row(one.class_id, admission.admit, one.stem)


def refuse(
    connection: Connection, host: Streamer, one: Prepare, code: ErrorCode, why: str, batch: Batch, now: float
) -> None:
    """Keep the refusal, so that a second delivery gets the same one, and report it."""
    site = store.rendition_path(host.settings.video_root, one.stem)
    airings.add(connection, one, AiringState.REFUSED, str(site), now)
    airings.note_refusal(connection, one.class_id, code, why, now)
    report(connection, host, airings.prepared(one.class_id, host.settings.name, code, why), now)
    events.note(
        connection,
        host.journal,
        host.settings.name,
        [Event("refused", one.class_id, one.stem, f"{code.number}: {why}")],
        now,
    )
    batch.row(one.class_id, f"refuse {code.number}", why)


def report(connection: Connection, host: Streamer, said: Report, now: float) -> None:
    """Put a report for the teacher in the outbox."""
    out = Outgoing(host.settings.report_stream, Kind.STREAM, said, said.class_id)
    outbox.put(connection, host.journal, [out], now)


def _why_not(found: Looked | None) -> tuple[ErrorCode, str]:
    if isinstance(found, LecternError):
        return found.code or errors.DOWNLOAD_FAILED, found.message
    return errors.DOWNLOAD_FAILED, "the origin does not say how large the recording is"


def _prepared_again(connection: Connection, host: Streamer, known: airings.Airing, batch: Batch, now: float) -> None:
    """A second delivery changes nothing, and is answered as the first."""
    code = errors.CODES.get(known.code or 0)
    if known.state in {AiringState.READY, AiringState.ON_AIR, AiringState.AIRED}:
        report(connection, host, airings.prepared(known.class_id, host.settings.name, message="prepared"), now)
    elif code is not None:
        report(connection, host, airings.prepared(known.class_id, host.settings.name, code, known.message or ""), now)
    batch.row(known.class_id, f"again: {known.state}")


def _release(
    connection: Connection, host: Streamer, kept: inbox.Kept, release: Release, batch: Batch, now: float
) -> bool:
    """Release a cancelled class; False where it may not have come here yet."""
    known = airings.by_id(connection, [release.class_id]).get(release.class_id)
    if known is None:
        batch.row(release.class_id, "release of an unknown class")
        return kept.tries >= RELEASE_TRIES
    if known.state not in {AiringState.AIRED, AiringState.REFUSED, AiringState.CANCELLED}:
        airings.move(connection, known, AiringState.CANCELLED, now)
        events.note(connection, host.journal, host.settings.name, [Event("released", known.class_id, known.stem)], now)
        batch.stops.append(known)
    batch.row(release.class_id, "release")
    return True


async def remove_files(host: Streamer, gone: Sequence[Idle]) -> None:
    """Unlink evicted files, then forget their rows."""
    paths = [store.rendition_path(host.settings.video_root, one.stem) for one in gone]
    await asyncio.to_thread(_unlink, paths)
    await host.commit(cache.forget, [one.stem for one in gone])


def _unlink(paths: Sequence[Path]) -> None:
    for path in paths:
        store.remove(path)


async def follow(host: Streamer, batch: Batch) -> None:
    """Begin the downloads, schedule the broadcasts, stop what was released."""
    for stem in batch.downloads:
        await download.start(host, stem)
    await broadcast.schedule(host, batch.ready)
    for one in batch.stops:
        if one.class_id in host.guarded:
            host.guarded[one.class_id].cancel("the class was cancelled")
        if one.run_id is None:
            continue
        try:
            await host.runs.cancel(one.run_id, "the class was cancelled")
        except (httpx.HTTPError, PrefectException) as error:
            log.warning("%s: its run can not be cancelled in the UI: %s", one.class_id, error)
