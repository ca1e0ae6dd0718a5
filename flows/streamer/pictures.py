"""The cache of a streamer in the UI: a table of now, and a picture of the hours ahead."""

import time
from collections.abc import Sequence

from flows.show import Board
from lectern.decide import day
from lectern.decide.day import Needed
from lectern.effects import chart
from lectern.effects.rows.airings import Airing
from lectern.effects.rows.cache import Cached
from lectern.settings import GIBIBYTE
from lectern.states import LIVE_AIRINGS, FileState

CACHE_COLOURS = (chart.GREEN, chart.BLUE, chart.GREY)


async def show_cache(
    board: Board, name: str, live: Sequence[Airing], rows: Sequence[Cached], bound: int, now: float
) -> None:
    """What of a streamer's cache is bound by classes in the next 24 hours."""
    here = {one.stem: one.size_bytes for one in rows if one.state is FileState.READY}
    needed = [
        Needed(one.stem, here[one.stem], one.end_time) for one in live if one.stem in here and one.state in LIVE_AIRINGS
    ]
    found = day.cache_ahead(needed, sum(here.values()), bound, now)
    sizes = {what: [round(one / GIBIBYTE, 3) for one in some] for what, some in found.items()}
    said = f"The cache of {name} in G, hour by hour from now on"
    await board.bars(f"cache-ahead-{name}", _clock(int(now // day.HOUR_S)), sizes, CACHE_COLOURS, said)


def cache_lines(rows: Sequence[Cached], bound: int) -> list[dict[str, object]]:
    """The cache of a streamer as a table: what is used, reserved, pinned, evictable."""
    here = [one for one in rows if one.state is FileState.READY]
    idle = [one for one in here if one.num_cite <= 0]
    sums = {
        "used": here,
        "reserved": [one for one in rows if one.state is FileState.DOWNLOADING],
        "pinned": [one for one in here if one.num_cite > 0],
        "evictable": idle,
    }
    found: list[dict[str, object]] = [
        {"what": what, "renditions": len(some), "bytes": sum(one.size_bytes for one in some)}
        for what, some in sums.items()
    ]
    oldest = f"oldest evictable: {idle[0].stem}" if idle else "nothing is evictable"
    return [
        *found,
        {"what": "bound", "renditions": "", "bytes": bound},
        {"what": oldest, "renditions": "", "bytes": ""},
    ]


def _clock(first: int) -> list[str]:
    """The hours of a clock on the wall, from the hour *first* (since the epoch) on."""
    return [time.strftime("%H", time.localtime((first + one) * day.HOUR_S)) for one in range(day.HOURS)]
