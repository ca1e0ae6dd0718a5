"""Reads what a forecast needs: the downloads that are under way or wait, what they may take, and who waits for them."""

import math

from sqlalchemy import Connection

from lectern.db import airings, cache
from lectern.decide.bandwidth import Bounds, Download
from lectern.decide.forecast import Capacity, arrivals
from lectern.model.facts import Airing
from lectern.settings import StreamerSettings
from lectern.storage import cache_dir


def downloads(connection: Connection, settings: StreamerSettings) -> dict[str, Download]:
    """The downloads that are under way, or wait, by stem."""
    rows = cache.downloading(connection, math.inf)
    starts = airings.needed_at(connection, [row.stem for row in rows])
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


def waiting(
    connection: Connection, settings: StreamerSettings, now: float, slow: float = 1.0
) -> dict[str, tuple[Airing, float]]:
    """The classes that wait for a download, by class_id, each with the time (epoch seconds) when it will be there."""
    coming = downloads(connection, settings)
    if not coming:
        return {}
    ready_at = arrivals(coming.values(), capacity(connection, settings, now, slow), now)
    return {
        airing.class_id: (airing, ready_at[airing.stem])
        for airing in airings.waiting(connection)
        if airing.stem in ready_at
    }
