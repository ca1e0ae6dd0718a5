"""Runs that are begun beside the work: Prefect may be slow or away, and no recording waits for it in a line."""

import asyncio
from typing import cast

import pytest

from flows import prefect_api
from flows.prefect_api import BackgroundRuns, NewRun
from flows.resident.prefect.runs import ResidentRuns
from lectern.errors import TryAgain

DOWNLOADS = 40
SLOW_S = 0.3
"""How long this Prefect lets those wait that ask it for a run; a real one up to five seconds."""


class Prefect:
    """Takes no run while it is away; what is done without one is noted."""

    def __init__(self) -> None:
        self.is_away = True
        self.asked = 0
        self.shown: list[str] = []
        self.done: list[str] = []

    async def start(self, run: NewRun) -> None:
        self.asked += 1
        await asyncio.sleep(SLOW_S)
        if self.is_away:
            raise TryAgain("Prefect does not take the run")
        self.shown.append(run.parameters["stem"])

    async def without(self, run: NewRun) -> None:
        self.done.append(run.parameters["stem"])

    def draining(self) -> bool:
        return False


async def _begin(mine: BackgroundRuns, prefect: Prefect, number: int, *, needs_run: bool = False) -> None:
    for stem in map(str, range(number)):
        runs = cast("ResidentRuns", prefect)
        mine.begin(runs, NewRun("download", {"stem": stem}, f"download {stem}"), needs_run=needs_run)
    async with asyncio.timeout(20):
        await asyncio.gather(*mine._waiting.values())
        await asyncio.gather(*mine._working)


def test_downloads_do_not_wait_one_after_the_other_for_a_prefect_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those at the front of the line find it out; the others begin at once, without a run."""
    monkeypatch.setattr(prefect_api, "PATIENCE_S", 0.0)
    prefect = Prefect()
    asyncio.run(_begin(BackgroundRuns(), prefect, DOWNLOADS))
    assert sorted(prefect.done) == sorted(map(str, range(DOWNLOADS)))
    assert prefect.asked <= prefect_api.AT_ONCE


def test_prefect_is_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is back, runs are shown again."""
    monkeypatch.setattr(prefect_api, "PATIENCE_S", 0.0)
    monkeypatch.setattr(prefect_api, "CIRCUIT_OPEN_S", 0.0)
    prefect, mine = Prefect(), BackgroundRuns()

    async def scene() -> None:
        await _begin(mine, prefect, 1)
        prefect.is_away = False
        await _begin(mine, prefect, 1)

    asyncio.run(scene())
    assert (prefect.done, prefect.shown) == (["0"], ["0"])


def test_work_that_needs_a_run_asks_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it can be done without, so it waits for its own answer."""
    monkeypatch.setattr(prefect_api, "PATIENCE_S", 0.0)
    prefect = Prefect()
    asyncio.run(_begin(BackgroundRuns(), prefect, 2 * prefect_api.AT_ONCE, needs_run=True))
    assert prefect.asked == 2 * prefect_api.AT_ONCE
    assert prefect.done == []
