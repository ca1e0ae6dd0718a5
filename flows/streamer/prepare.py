"""Prepares classes on a streamer in batches: each cites a cached rendition, reserves a download, or is refused."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State

from flows.handling import Apart, Batch, ended, handled, put_off, read
from flows.host import NOWHERE, Streamer, log, streamer
from flows.playout import boot_now
from flows.streamer import admission, looks, push_hosts
from flows.streamer.looks import Asked, Looked, prepares
from flows.tell import tell
from lectern.decide.broadcast import RUN_AHEAD_S
from lectern.decide.lease import WITNESS_S
from lectern.effects.files import store
from lectern.effects.rows import cache
from lectern.facts import Idle
from lectern.messages import Prepare
from lectern.outgoing import Alarm
from lectern.states import AiringState
from lectern.streamer_changes import StreamerChanges


@flow(name="prepare", persist_result=False, result_storage=NOWHERE)
async def prepare(inbox_ids: str, dry_run: bool = False) -> State[None]:
    """Prepare the classes of *inbox_ids*: cite cached renditions, reserve and download the others."""
    host = streamer()
    batch = await _put_off_moved(await read(host, inbox_ids, (Prepare,), dry_run=dry_run))
    found = Apart[Asked, StreamerChanges]()
    async with aclosing(looks.as_looked(host, *await host.look(looks.named, batch.came))) as portions:
        async for some, looked in portions:
            portion = await _take(host, some, looked, dry_run=dry_run)
            found.done += portion.done
            found.failed += portion.failed
    return await ended("prepare", batch, found, "What became of each class")


async def _put_off_moved(batch: Batch[Prepare]) -> Batch[Prepare]:
    """The messages that may be handled now; moved classes wait if this streamer has lately said that it is cut off.

    The streamer that had such a class may rely on that answer for WITNESS_S, and go on airing the class.
    """
    wait_s = batch.host.blind_at + WITNESS_S - boot_now()
    if wait_s <= 0:
        return batch
    moved = {one.kept.id for one in batch.came if isinstance(one.message, Prepare) and one.message.placement > 1}
    return await put_off(batch, moved, wait_s, "their classes were moved, and may still be aired where they were")


async def _take(
    host: Streamer, came: Sequence[Asked], looked: dict[str, Looked], *, dry_run: bool
) -> Apart[Asked, StreamerChanges]:
    """Cite, reserve or refuse these classes, report it, and begin their downloads."""
    barred = await push_hosts.forbidden(host, {one.push_url for one in prepares(came)})
    async with host.cache_lock:
        # What was cached a moment ago may have been evicted by another run.
        came, here = await host.look(looks.named, came)
        looked = looked | await looks.look(host, came, here | looked.keys())
        found = await handled(host, came, partial(admission.decided, looked, barred), dry_run=dry_run)
        if dry_run:
            return found
        await remove_files(host, [gone for changes in found.done for gone in changes.evicted])
    await tell(host)
    for changes in found.done:
        follow(host, changes)
    return found


async def remove_files(host: Streamer, gone: Sequence[Idle]) -> None:
    """Unlink evicted files, then forget their rows; a file that cannot be unlinked is tried again by the sweeper."""
    if not gone:
        return
    paths = {one.stem: store.rendition_path(host.settings.video_root, one.stem) for one in gone}
    await host.commit(cache.forget, await asyncio.to_thread(_unlinked, paths))


def _unlinked(paths: Mapping[str, Path]) -> list[str]:
    """Unlink the files of these stems; returns the stems of those that are gone."""
    done = []
    for stem, path in paths.items():
        try:
            store.remove(path)
        except OSError as error:
            log.error("%s: its file cannot be deleted, it is tried again: %s", stem, error)
        else:
            done.append(stem)
    return done


def follow(host: Streamer, changes: StreamerChanges) -> None:
    """Log the alarms of what was committed; wake who begins downloads, and who plans broadcasts.

    Both look by themselves every few seconds, at all classes: a storm of classes for tomorrow need not wake them.
    """
    for one in changes.sends:
        if isinstance(one.message, Alarm):
            log.warning("%s", one.message.message)
    if changes.reserved:
        host.unfetched.set()
    soon = time.time() + host.settings.broadcast_lead_s + RUN_AHEAD_S
    if any(begins < soon for begins in changes.ready):
        host.unplanned.set()
        host.playout.wanted.set()
    elif any(one.state is AiringState.WAITING and one.wanted.start_time < soon for one in changes.admitted):
        host.playout.wanted.set()  # it begins with the slate
