"""What a host shows of itself in the UI, beside its runs: tables and charts, each kept up to date in its place."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import ArtifactCreate

from flows.host import Host, log
from flows.resident.prefect_client import AWAY
from lectern.decide import day
from lectern.decide.day import Needed
from lectern.effects import chart
from lectern.effects.rows import status
from lectern.effects.rows.airings import Airing
from lectern.effects.rows.cache import Cached
from lectern.settings import GIBIBYTE, TeacherSettings
from lectern.states import LIVE_AIRINGS, FileState

CHART_EVERY_S = 60.0
"""A chart is drawn anew so often at most, and only where its numbers have changed."""

SHOW_S = 8.0
"""Seconds that a Prefect server has to take a table or a chart: the checks of the classes wait for it."""

OUTCOME_COLOURS = (chart.GREEN, chart.BLUE, chart.ORANGE, chart.RED, chart.GREY)
CACHE_COLOURS = (chart.GREEN, chart.BLUE, chart.GREY)


class Board:
    """The artifacts of one host.

    An artifact that belongs to no run is deleted by nobody, so one a key is made, and then changed: in a year of
    15-second looks there is one row.
    """

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._shown: dict[str, object] = {}
        self._ids: dict[str, UUID] = {}
        self._drawn_at: dict[str, float] = {}

    async def table(self, key: str, lines: list[dict[str, object]], description: str) -> None:
        """Show *lines* under *key*; what is shown already is not sent again."""
        if self._shown.get(key) != lines and await self._put(key, "table", json.dumps(lines), description):
            self._shown[key] = lines

    def is_due(self, key: str) -> bool:
        """Whether a chart may be drawn anew."""
        return time.monotonic() - self._drawn_at.get(key, -CHART_EVERY_S) >= CHART_EVERY_S

    async def bars(
        self,
        key: str,
        labels: Sequence[str],
        series: Mapping[str, Sequence[float]],
        colours: Sequence[str],
        description: str,
    ) -> None:
        """Show stacked bars under *key*."""
        if not self.is_due(key) or self._shown.get(key) == (labels, series):
            return
        image = await asyncio.to_thread(chart.bars, description, labels, series, colours)
        if await self._put(key, "image", image, description):
            self._shown[key], self._drawn_at[key] = (labels, series), time.monotonic()

    async def _put(self, key: str, kind: str, data: str, description: str) -> bool:
        slug = key.lower().replace("_", "-").replace(".", "-").replace(":", "-")
        try:
            async with asyncio.timeout(SHOW_S):
                if key in self._ids:
                    # Not by the client's own method: it sends all the data once more, as an event.
                    await self._client.request(
                        "PATCH", "/artifacts/{id}", path_params={"id": self._ids[key]}, json={"data": data}
                    )
                else:
                    wanted: Any = ArtifactCreate(key=slug, type=kind, description=description, data=data)
                    self._ids[key] = (await self._client.create_artifact(wanted)).id
        except TimeoutError:
            log.warning("artifact %s: not shown: %s", slug, f"no answer within {SHOW_S:g} s")
            return False
        except AWAY as error:
            self._ids.pop(key, None)  # somebody may have deleted it
            log.warning("artifact %s: not shown: %s", slug, error)
            return False
        return True


async def show_bookings(board: Board, host: Host[TeacherSettings], now: float) -> None:
    """What the bookings of the last 24 hours came to."""
    name = host.settings.name
    key = f"bookings-{name}"
    if not board.is_due(key):
        return
    first = int(now // day.HOUR_S) - day.HOURS + 1
    found = day.outcomes(await host.look(status.by_hour, first * day.HOUR_S, day.HOURS))
    said = f"Bookings of {name}, by the hour in which they came"
    await board.bars(key, _clock(first), found, OUTCOME_COLOURS, said)


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
