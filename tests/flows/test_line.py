"""A download that is needed first is done first, however late it was asked for."""

import asyncio
from asyncio import Event, create_task, sleep

import pytest

from flows.line import Line


class Downloads:
    """Downloads that note in which order they get their turn, and go on when they are told."""

    def __init__(self) -> None:
        self.line = Line()
        self.begun: list[str] = []
        self.ends: dict[str, Event] = {}

    async def begin(self, stem: str, needed_at: float) -> "asyncio.Task[None]":
        """Ask for a place."""

        async def work() -> None:
            async with self.line.place(stem, needed_at, 1):
                self.begun.append(stem)
                await self.ends[stem].wait()

        self.ends[stem] = Event()
        task = create_task(work())
        await sleep(0)
        return task

    async def end(self, stem: str) -> None:
        """The download is over."""
        self.ends[stem].set()
        for _ in range(3):
            await sleep(0)


@pytest.mark.asyncio
async def test_a_free_place_goes_to_the_download_that_is_needed_first() -> None:
    """Also where another class makes it urgent while it waits."""
    some = Downloads()
    tasks = [await some.begin(stem, at) for stem, at in (("a", 900), ("b", 800), ("c", 300), ("d", 600))]
    some.line.sooner("b", 100)
    some.line.sooner("unknown", 1)
    for stem in "abcd":
        await some.end(stem)
    for stem in "bcd":
        await some.end(stem)
    await asyncio.gather(*tasks)
    assert some.begun == ["a", "b", "c", "d"]


@pytest.mark.asyncio
async def test_one_that_is_cancelled_loses_no_place() -> None:
    """Neither while it waits, nor in the moment in which it got its turn, nor at work."""
    some = Downloads()
    a, b, c = [await some.begin(stem, at) for stem, at in (("a", 1), ("b", 2), ("c", 3))]
    some.ends["a"].set()
    await sleep(0)
    b.cancel()
    await asyncio.gather(a, b, return_exceptions=True)
    await sleep(0)
    assert "c" in some.begun
    c.cancel()
    await asyncio.gather(c, return_exceptions=True)
    last = await some.begin("d", 9)
    assert some.begun[-1] == "d"
    await some.end("d")
    await last
