"""Reads what a forecast of a streamer needs: the downloads under way, what they may take, and who waits for them."""

import math

from sqlalchemy import Connection, func, select

from lectern.db import airings, cache
from lectern.decide.bandwidth import Bounds, Download
from lectern.decide.forecast import Capacity, arrivals
from lectern.model.facts import Airing
from lectern.model.tables.streamer import files
from lectern.settings import StreamerSettings
from lectern.storage import cache_dir

HOUR_BYTES, WEEK_S = 675_000_000, 7 * 86_400.0
"""Bytes of an hour at 1.5 Mbit/s, which a recording is expected to have while none is here."""


def downloads(connection: Connection, settings: StreamerSettings) -> dict[str, Download]:
    """The downloads that are under way, or wait, by stem."""
    rows = cache.downloading(connection)
    starts = airings.needed_at(connection, [row.stem for row in rows]) if rows else {}
    return {
        row.stem: Download(
            row.stem,
            row.size_bytes,
            starts.get(row.stem, math.inf),
            cache_dir.size_bytes(cache_dir.part_path(settings.video_root, row.stem)),
        )
        for row in rows
    }


def capacity(connection: Connection, settings: StreamerSettings, now: float, slow: float = 1.0) -> Capacity:
    """What downloads may take from *now* on; *slow* is how many times as long as expected their checks take."""
    bounds = Bounds.of(settings)
    needed = airings.needed(connection, now) if math.isfinite(bounds.host_bytes) else ()
    return Capacity(bounds, needed, slow)


def booked_now_s(connection: Connection, settings: StreamerSettings, now: float, slow: float) -> tuple[float, float]:
    """Seconds until a recording of no length, and one of an hour, would be there, booked now for a week ahead."""
    sums = select(func.sum(files.c.size_bytes), func.sum(files.c.duration_s)).where(cache.HERE, files.c.duration_s > 0)
    size_bytes, length_s = connection.execute(sums).one()
    hour_bytes = int(3600 * size_bytes / length_s) if length_s else HOUR_BYTES
    coming, may = list(downloads(connection, settings).values()), capacity(connection, settings, now, slow)
    found = [arrivals([*coming, Download("", its, WEEK_S + now)], may, now)[""] - now for its in (0, hour_bytes)]
    return found[0], found[1]


def waiting(
    connection: Connection, settings: StreamerSettings, now: float, slow: float = 1.0
) -> dict[str, tuple[Airing, float]]:
    """The classes and revisions that wait for a download, by id, each with when that will be there (epoch seconds)."""
    coming = downloads(connection, settings)
    if not coming:
        return {}
    ready_at = arrivals(coming.values(), capacity(connection, settings, now, slow), now)
    return {
        airing.class_id: (airing, ready_at[airing.stem])
        for airing in airings.waiting(connection)
        if airing.stem in ready_at
    }
