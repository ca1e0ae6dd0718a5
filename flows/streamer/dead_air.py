"""Each recording is looked through once before its class; a warning names what is black, frozen or silent in it.

The look delays nothing: a class is ready before it, and is aired whatever it finds.
"""

import asyncio
import time
from collections.abc import Sequence

from sqlalchemy import Connection

from flows.host import Streamer, log
from flows.tell import tell
from lectern import errors
from lectern.decide import dead_air as decide
from lectern.effects.files import store
from lectern.effects.media.samples import samples
from lectern.effects.rows import dead_air, events, outbox
from lectern.errors import Caught
from lectern.facts import Airing, Cached, Event

LOOK_EVERY_S = 5.0
WARN_EVERY_S = 30.0
"""Seconds between two comparisons of all classes with their recordings, besides those after a look."""

REPORTED = 200
"""Number of classes whose faulty recordings a streamer reports to its teacher, the earliest classes first."""


async def keep(host: Streamer) -> None:
    """Look through one recording after another, and tell what was found, until cancelled."""
    looking: asyncio.Task[None] | None = None
    warn_at = 0.0
    try:
        while True:
            host.rounds.come("dead air")
            if looking is not None and looking.done():
                looking.result()  # raises what nobody foresaw
                looking, warn_at = None, 0.0
            if looking is None and (row := await host.look(dead_air.unlooked, time.time())) is not None:
                looking = asyncio.create_task(look(host, row), name=f"look through {row.stem}")
            if time.monotonic() >= warn_at:
                await warn(host)
                warn_at = time.monotonic() + WARN_EVERY_S
            if looking is not None:
                await asyncio.wait({looking}, timeout=LOOK_EVERY_S)
            else:
                await asyncio.sleep(LOOK_EVERY_S)
    finally:
        if looking is not None:
            looking.cancel()


async def look(host: Streamer, row: Cached) -> None:
    """Look through one recording, and note what was found; one that cannot be looked through is not tried again."""
    path = store.rendition_path(host.settings.video_root, row.stem)
    warning, said = "", ""
    with Caught() as failed:
        found = await samples(path, row.duration_s or 0.0)
        warning = await asyncio.to_thread(decide.warning, found)
        loud = "" if found.loudness is None else f", {found.loudness:.0f} LUFS"
        said = warning or f"nothing is black, frozen or silent for long{loud}"
    if failed.error is not None:  # it is this file's, and those behind it are looked at
        log.warning("%s: was not looked through for dead air: %s", row.stem, failed.error)
        warning, said = "", f"it could not be: {failed.error}"
    await host.commit(_note, host, row, warning, said)


async def warn(host: Streamer) -> None:
    """Raise an alarm for each class whose recording has dead air or is too short; once."""
    host.dead_air = {one.class_id: why for one, why in await host.look(dead_air.coming, REPORTED)}
    found = await host.look(dead_air.untold, time.time())
    if found:
        await host.commit(_warn, host, found, time.time())
        await tell(host)


def _note(connection: Connection, host: Streamer, row: Cached, warning: str, said: str) -> None:
    if dead_air.looked(connection, row, warning):
        made = Event("looked through", stem=row.stem, detail=said)
        events.note(connection, host.journal, host.settings.name, [made], time.time())


def _warn(connection: Connection, host: Streamer, found: Sequence[tuple[Airing, str]], now: float) -> None:
    code, name = errors.DEAD_AIR, host.settings.name
    for one, warning in found:
        log.warning("%s: its recording %s is faulty: %s", one.class_id, one.stem, warning)
        said = f"{one.class_id}: its recording {one.stem} is faulty: {warning}"
        alarm = host.alarm(code, said, now, class_id=one.class_id, record_id=one.record_id)
        outbox.put(connection, host.journal, [alarm], now)
        events.note(connection, host.journal, name, [Event(dead_air.TOLD, one.class_id, one.stem, warning)], now)
