"""A class that was promised and has lost its file: it waits for a second download, or is refused; a person is told."""

import asyncio
import time
from pathlib import Path

from sqlalchemy import Connection

from flows.host import Host, log
from flows.tell import tell
from lectern import errors, outgoing
from lectern.decide import readiness
from lectern.effects.files import store
from lectern.effects.rows import airings, cache, events, outbox
from lectern.effects.rows.airings import Airing
from lectern.effects.rows.cache import Cached
from lectern.errors import LecternError, Refuse
from lectern.facts import Event
from lectern.outgoing import Kind, Outgoing
from lectern.settings import StreamerSettings
from lectern.states import AiringState, FileState

Streamer = Host[StreamerSettings]


async def replace(host: Streamer, stem: str, why: str) -> None:
    """Put what there is of a rendition aside and download it again, unless a class is pushed from it just now."""
    path = store.rendition_path(host.settings.video_root, stem)
    async with host.cache_lock:
        row = (await host.look(cache.by_stem, [stem])).get(stem)
        pushed = await host.look(airings.citing, stem, AiringState.ON_AIR)
        if row is None or row.state is not FileState.READY or pushed:
            return
        try:
            if await asyncio.to_thread(path.exists):
                await asyncio.to_thread(store.quarantine, host.settings.video_root, path)
        except OSError as error:
            log.error("%s: its file cannot be put aside: %s", stem, error)
        await host.commit(fetch_again, host, row, why)
    await tell(host)


def fetch_again(connection: Connection, host: Streamer, row: Cached, why: str) -> bool:
    """Forget the file of *row*, which is lost as *why* says; reserve a download where classes need it.

    Its classes wait, or are refused where nobody knows a URL. Returns whether there is anything to download.
    """
    now, root, stem = time.time(), host.settings.video_root, row.stem
    url = airings.latest_url(connection, stem) or row.url
    needing = [
        one
        for state in (AiringState.READY, AiringState.ON_AIR, AiringState.BROKEN)
        for one in airings.citing(connection, stem, state)
    ]
    log.warning("%s: its file is lost: %s; %d classes need it", stem, why, len(needing))
    cache.lose(connection, root, row)
    events.note(connection, host.journal, host.settings.name, [Event("its file is lost", stem=stem, detail=why)], now)
    if needing and url:
        site = Path(row.site) if row.site else store.rendition_path(root, stem)
        cache.reserve(connection, root, stem, row.size_bytes, url, site, now, source=row.source)
        cache.cite(connection, stem, len(needing), now)
    for one in needing:
        if one.state is AiringState.BROKEN:
            continue  # it is not aired again unless a person retries it
        airings.wait_again(connection, one, now)
        if url:
            _alarm(connection, host, one, f"its file is lost: {why}; it is downloaded again", now)
    if needing and not url:
        refuse(connection, host, stem, Refuse(f"{stem}: {why}, and no URL is known", errors.DOWNLOAD_FAILED))
    return bool(needing and url)


def refuse(connection: Connection, host: Streamer, stem: str, error: LecternError) -> None:
    """Refuse all classes that wait for a rendition: it cannot be had."""
    now, name = time.time(), host.settings.name
    code = error.code or errors.DOWNLOAD_FAILED
    reports: list[Outgoing] = []
    for one in airings.citing(connection, stem, AiringState.WAITING):
        airings.move(connection, one, AiringState.REFUSED, now, code=code, message=error.message)
        said = airings.report("prepared", one, name, code, error.message)
        reports.append(Outgoing(host.settings.report_stream, Kind.STREAM, said, one.class_id))
        if one.lost:
            _alarm(connection, host, one, f"its file is lost and cannot be had again: {error.message}", now)
    outbox.put(connection, host.journal, reports, now)


def _alarm(connection: Connection, host: Streamer, one: Airing, why: str, now: float) -> None:
    said = readiness.sentence(one.class_id, one.stem, one.start_time - now, [why])
    log.warning("%s", said)
    code, name = errors.NOT_READY_FOR_START, host.settings.name
    made = outgoing.alarm(code, said, now, name, class_id=one.class_id, record_id=one.record_id)
    outbox.put(connection, host.journal, [host.alarm(made)], now)
    events.note(connection, host.journal, name, [Event("alarm", one.class_id, one.stem, said)], now)
