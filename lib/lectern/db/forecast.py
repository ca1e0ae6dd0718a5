"""Reads what a forecast needs: the downloads that are under way or wait, what they may take, and who waits for them."""

import math

from sqlalchemy import Connection

from lectern.db import airings, cache
from lectern.decide.bandwidth import Bounds
from lectern.decide.forecast import Fetch, Network, arrivals
from lectern.model.facts import Airing
from lectern.settings import StreamerSettings
from lectern.storage import cache_dir


def fetches(connection: Connection, settings: StreamerSettings) -> dict[str, Fetch]:
    """The downloads that are under way, or wait, by stem."""
    rows = cache.downloading(connection, math.inf)
    starts = airings.needed_at(connection, [row.stem for row in rows])
    found: dict[str, Fetch] = {}
    for row in rows:
        came = cache_dir.size_bytes(cache_dir.part_path(settings.video_root, row.stem))
        left_bytes = max(row.size_bytes - came, 0)
        found[row.stem] = Fetch(row.stem, row.size_bytes, left_bytes, starts.get(row.stem, math.inf), begun=came > 0)
    return found


def network(connection: Connection, settings: StreamerSettings, now: float, slow: float = 1.0) -> Network:
    """What downloads may take from *now* on; *slow* is how many times as long as expected their checks take."""
    bounds = Bounds(settings.host_rate_bytes, settings.download_rate_bytes, settings.max_downloads)
    needed = airings.needed(connection, now) if math.isfinite(bounds.host_bytes) else ()
    return Network(bounds, needed, slow=slow)


def waiting(
    connection: Connection, settings: StreamerSettings, now: float, slow: float = 1.0
) -> dict[str, tuple[Airing, float]]:
    """The classes that wait for a download, by class_id, each with the time (epoch seconds) when it will be there."""
    coming = fetches(connection, settings)
    if not coming:
        return {}
    ready_at = arrivals(coming.values(), network(connection, settings, now, slow), now)
    return {
        airing.class_id: (airing, ready_at[airing.stem])
        for airing in airings.waiting(connection)
        if airing.stem in ready_at
    }
