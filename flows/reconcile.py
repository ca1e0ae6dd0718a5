"""The streamer's disk and its database are made to agree, once, at the start."""

import asyncio

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from sqlalchemy import Connection

from flows import artifacts, lost
from flows.host import NOWHERE, Host, log, streamer
from lectern.effects import airings, cache, probe, store
from lectern.errors import LecternError
from lectern.settings import StreamerSettings
from lectern.states import FileState

Streamer = Host[StreamerSettings]


@flow(name="reconcile", persist_result=False, result_storage=NOWHERE)
async def reconcile(dry_run: bool = False) -> State[None]:
    """Scan the disk; unknown files go to quarantine, missing ones are downloaded again if a class needs them."""
    host = streamer()
    table = await reconciled(host, dry_run=dry_run)
    await artifacts.table("reconcile", table, "What the disk and the database disagreed about")
    return Completed(message=f"{len(table)} differences")


async def reconciled(host: Streamer, *, dry_run: bool = False) -> list[dict[str, object]]:
    """Do it; returns one row a difference. With *dry_run* only look."""
    root = host.settings.video_root
    async with host.cache_lock:
        found = await asyncio.to_thread(store.scan, root)
        on_disk = {one.stem: one for one in found if one.kind == "rendition" and one.stem}
        strange = [one.path for one in found if one.kind == "unknown"]
        known = {row.stem: row for row in await host.commit(cache.everything)}
        strange += [one.path for stem, one in on_disk.items() if not _kept(known.get(stem))]
        missing = [stem for stem, row in known.items() if row.state is FileState.READY and stem not in on_disk]
        table: list[dict[str, object]] = [{"what": str(path), "done": "moved to quarantine"} for path in strange]
        table += [{"what": stem, "done": "its file is missing"} for stem in missing]
        if dry_run:
            return table
        for path in strange:
            log.warning("%s: no row knows it; it is moved to quarantine", path)
            await asyncio.to_thread(store.quarantine, root, path)
        sizes = {stem: one.size_bytes for stem, one in on_disk.items()}
        await host.commit(_agree, host, known, sizes, missing)
    await _measure(host, [stem for stem, row in known.items() if row.duration_s is None and stem in on_disk])
    return table


def _kept(row: cache.Cached | None) -> bool:
    """Whether the file of a row is to stay: a finished download that was not noted yet is downloaded again."""
    return row is not None and row.state is FileState.READY


def _agree(
    connection: Connection, host: Streamer, known: dict[str, cache.Cached], sizes: dict[str, int], missing: list[str]
) -> None:
    root = host.settings.video_root
    for stem, row in known.items():
        if row.state is FileState.EVICTING:
            cache.forget(connection, [stem])
        elif row.state is FileState.READY and stem in sizes and row.size_bytes != sizes[stem]:
            cache.adopt(connection, stem, store.rendition_path(root, stem), sizes[stem], None)
    for stem in missing:
        lost.fetch_again(connection, host, known[stem], "it is not on the disk")
    cache.recount(connection, root, airings.citations(connection))


async def _measure(host: Streamer, stems: list[str]) -> None:
    """Old rows know no duration; it is needed to air from the middle."""
    for stem in stems:
        path = store.rendition_path(host.settings.video_root, stem)
        try:
            found = await probe.probe(path)
        except LecternError as error:
            log.warning("%s: %s", stem, error.message)
            continue
        await host.commit(cache.adopt, stem, path, found.size_bytes, found.duration_s)
