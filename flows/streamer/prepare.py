"""Renditions on a streamer: classes are prepared in batches, recordings downloaded, the disk reconciled."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from sqlalchemy import Connection

from flows import show
from flows.batch import FAILED, Apart, apart, kept_of, summary
from flows.host import NOWHERE, log, streamer
from flows.playout import boot_now
from flows.streamer import admission, push_hosts
from flows.streamer.admission import Batch, Looked, Streamer
from flows.tell import tell
from flows.trouble import words
from lectern.commands import parse
from lectern.decide.lease import WITNESS_S
from lectern.effects.files import origin, store
from lectern.effects.files.origin import Allowed
from lectern.effects.rows import airings, cache, inbox, released
from lectern.errors import DOWNLOAD_FAILED, FORBIDDEN_PUSH_HOST, LecternError, Malformed, Refuse
from lectern.facts import Idle, Kept
from lectern.messages import Prepare
from lectern.shown import shown
from lectern.states import LIVE_AIRINGS, FileState
from lectern.stems import Held

LOOKS, LOOKS_AT_HOST = 128, 16
"""Recordings that are looked at side by side; few of them at one host, which would else hold up the others."""

PORTION_S = 1.0
"""Seconds after which the classes whose recordings were looked at wait no longer for the others of their batch."""


@dataclass
class _Parsed:
    prepares: list[tuple[int, Prepare]] = field(default_factory=list)
    bad: list[tuple[Kept, Malformed]] = field(default_factory=list)

    def ids(self) -> list[int]:
        """Of the messages, in their order of arrival."""
        return sorted([*(id_ for id_, _ in self.prepares), *(kept.id for kept, _ in self.bad)])

    def only(self, ids: Collection[int]) -> "_Parsed":
        """Some of them."""
        some = set(ids)
        return _Parsed([one for one in self.prepares if one[0] in some], [one for one in self.bad if one[0].id in some])


@flow(name="prepare", persist_result=False, result_storage=NOWHERE)
async def prepare(inbox_ids: str, dry_run: bool = False) -> State[None]:
    """Prepare the classes of *inbox_ids*: cite what is cached, reserve and download what is not."""
    host, ids = streamer(), inbox.ids_of(inbox_ids)
    parsed = _read(await kept_of(host, ids))
    if dry_run:
        return Completed(message=f"dry run: {len(parsed.prepares)} to prepare")
    parsed = await _put_off_moved(host, parsed)
    batch, failed = Batch(), Apart[int, Batch]()
    async with aclosing(_as_looked(host, parsed, await host.look(_name, parsed))) as portions:
        async for some, looked in portions:
            found = await _take(host, some, looked)
            failed.failed += found.failed
            for portion in found.done:
                batch.add(portion)
    for inbox_id, why in failed.failed:
        batch.row(f"inbox {inbox_id}", FAILED, why)
    await show.table("prepare-batch", batch.table, "What became of each class")
    return failed.state(summary(batch.table), len(ids))


async def _put_off_moved(host: Streamer, parsed: _Parsed) -> _Parsed:
    """Those that may be prepared now.

    The streamer from which a class was moved may go on with it as long as it relies on our word that we are blind.
    """
    wait_s = host.blind_at + WITNESS_S - boot_now()
    moved = {id_ for id_, one in parsed.prepares if one.placement > 1} if wait_s > 0 else set()
    if moved:
        log.info("%d moved classes wait for %.0f s: their streamers may still air them", len(moved), wait_s)
        await host.commit(inbox.put_off, host.journal, sorted(moved), time.time() + wait_s)
    return parsed.only([id_ for id_ in parsed.ids() if id_ not in moved])


async def _take(host: Streamer, parsed: _Parsed, looked: dict[str, Looked]) -> Apart[int, Batch]:
    """Cite, reserve or refuse these classes; tell of it, and begin their downloads."""
    barred = await push_hosts.forbidden(host, {one.push_url for _, one in parsed.prepares})
    async with host.cache_lock:
        # What was cached a moment ago may have been evicted by another run.
        looked = looked | await _look(host, parsed, await host.look(_name, parsed) | looked.keys())
        found = await apart(parsed.ids(), lambda some: host.commit(_act, host, parsed.only(some), looked, barred))
        await remove_files(host, [gone for portion in found.done for gone in portion.gone])
    await tell(host)
    for portion in found.done:
        follow(host, portion)
    return found


def _read(messages: Sequence[Kept]) -> _Parsed:
    parsed = _Parsed()
    for kept in messages:
        try:
            parsed.prepares.append((kept.id, parse(kept.body, (Prepare,))))
        except Malformed as error:
            parsed.bad.append((kept, error))
    return parsed


def _name(connection: Connection, parsed: _Parsed) -> set[str]:
    """Name the rendition of each class beside what is cached; returns which are there, or being downloaded."""
    asked = {one.named({}).stem for _, one in parsed.prepares}
    held = _held(connection, asked)
    here = set(held)
    for place, (id_, one) in enumerate(parsed.prepares):
        named = one.named(held)
        held.setdefault(named.stem, Held(named.source, named.video_url))
        parsed.prepares[place] = id_, named
    others = {one.stem for _, one in parsed.prepares} - asked
    return here | _held(connection, others).keys() if others else here


def _held(connection: Connection, stems: Collection[str]) -> dict[str, Held]:
    """What those of *stems* that are there, or being downloaded, are used for."""
    rows = cache.by_stem(connection, stems)
    there = (FileState.READY, FileState.DOWNLOADING)
    return {stem: Held(row.source, row.url) for stem, row in rows.items() if row.state in there}


async def _as_looked(
    host: Streamer, parsed: _Parsed, cached: set[str]
) -> AsyncGenerator[tuple[_Parsed, dict[str, Looked]], None]:
    """The classes in portions, as soon as it is known how large their recordings are; first those that are *cached*.

    So an origin that takes its time holds up no class of another one.
    """
    looks = _looks(host, parsed, cached)
    try:
        here = [id_ for id_, one in parsed.prepares if one.stem not in looks]
        if here or parsed.bad:
            yield parsed.only([*here, *(kept.id for kept, _ in parsed.bad)]), {}
        left = dict(looks)
        while left:
            await asyncio.wait(left.values(), timeout=PORTION_S)
            looked = {stem: task.result() for stem, task in left.items() if task.done()}
            left = {stem: task for stem, task in left.items() if stem not in looked}
            if looked:
                yield parsed.only([id_ for id_, one in parsed.prepares if one.stem in looked]), looked
    finally:
        for task in looks.values():
            task.cancel()


async def _look(host: Streamer, parsed: _Parsed, cached: set[str]) -> dict[str, Looked]:
    """How large each recording is that must be downloaded."""
    looks = _looks(host, parsed, cached)
    return dict(zip(looks, await asyncio.gather(*looks.values()), strict=True))


def _looks(host: Streamer, parsed: _Parsed, cached: set[str]) -> dict[str, asyncio.Task[Looked]]:
    """How large each recording is that must be downloaded; one HEAD a rendition.

    Whatever goes wrong with a URL is that URL's error: the others of the batch go on.
    """
    urls = {one.stem: one.video_url for _, one in parsed.prepares if one.stem not in cached}
    allowed = Allowed.parse(host.settings.allowed_origins)
    gate = asyncio.Semaphore(LOOKS)
    gates: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(LOOKS_AT_HOST))

    async def look(url: str) -> Looked:
        try:
            async with gates[urlsplit(url).netloc], gate:
                return await origin.look(url, allowed=allowed, timeout_s=host.settings.http_timeout_s)
        except LecternError as error:
            return error
        except Exception as error:  # noqa: BLE001 (an answer that nobody foresaw)
            why = words(error)
            log.error("%s: cannot be looked at: %s", shown(url), why)
            return Refuse(f"{shown(url)}: cannot be looked at: {why}", DOWNLOAD_FAILED)

    return {stem: asyncio.create_task(look(url)) for stem, url in urls.items()}


def _act(
    connection: Connection, host: Streamer, parsed: _Parsed, looked: dict[str, Looked], barred: dict[str, str]
) -> Batch:
    """*barred* are the push URLs that may not be pushed to, each with the reason."""
    now, batch = time.time(), Batch()
    fresh = _fresh(connection, host, [one for _, one in parsed.prepares], batch, now)
    for one in fresh:
        if one.push_url in barred:
            admission.refuse(connection, host, one, FORBIDDEN_PUSH_HOST, barred[one.push_url], batch, now)
    admission.admit(connection, host, [one for one in fresh if one.push_url not in barred], looked, batch, now)
    for kept, error in parsed.bad:
        inbox.bury(connection, host.journal, kept, error.message, host.settings.dead_letter_stream, now)
        batch.row(error.class_id or "?", "malformed", error.message)
    inbox.done(connection, host.journal, [id_ for id_, _ in parsed.prepares])
    return batch


def _fresh(
    connection: Connection, host: Streamer, prepares: Sequence[Prepare], batch: Batch, now: float
) -> list[Prepare]:
    """The classes that are new here, or come back by a later placement after they were released."""
    class_ids = [one.class_id for one in prepares]
    known = airings.by_id(connection, class_ids)
    too_late = released.released_before(connection, class_ids)
    fresh: dict[str, Prepare] = {}
    for one in prepares:
        before = known.get(one.class_id)
        if one.placement <= too_late.get(one.class_id, 0):
            batch.row(one.class_id, "was released before it came")
        elif before is None or (one.placement > before.placement and before.state not in LIVE_AIRINGS):
            latest = fresh.get(one.class_id, one)
            fresh[one.class_id] = one if one.placement > latest.placement else latest
        else:
            if one.placement > before.placement:
                airings.place(connection, one.class_id, one.placement)
                before = replace(before, placement=one.placement)
            admission.again(connection, host, before, batch, now)
    return list(fresh.values())


async def remove_files(host: Streamer, gone: Sequence[Idle]) -> None:
    """Unlink evicted files, then forget their rows."""
    if not gone:
        return
    paths = [store.rendition_path(host.settings.video_root, one.stem) for one in gone]
    await asyncio.to_thread(_unlink, paths)
    await host.commit(cache.forget, [one.stem for one in gone])


def _unlink(paths: Sequence[Path]) -> None:
    for path in paths:
        store.remove(path)


def follow(host: Streamer, batch: Batch) -> None:
    """Who begins downloads is told, and who plans broadcasts."""
    if batch.downloads:
        host.unfetched.set()
    if batch.ready:
        host.unplanned.set()
        host.playout.wanted.set()
