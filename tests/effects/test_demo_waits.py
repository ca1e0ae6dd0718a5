"""The demo's waits: they go on while something moves, and end in words that a person understands."""

import asyncio
from itertools import count

import pytest

from town import waits
from town.waits import GaveUp, Sight, Waits


def never() -> bool:
    return False


@pytest.mark.asyncio
async def test_a_wait_goes_on_for_as_long_as_something_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "_LOOK_S", 0.0)
    moving, came = count(), asyncio.Event()
    asyncio.get_running_loop().call_later(1.0, came.set)
    assert await Waits(still_s=0.3).until(came.is_set, "a class", lambda: Sight(next(moving)))


@pytest.mark.asyncio
async def test_a_wait_in_which_nothing_moves_ends_with_what_it_was_for_and_what_was_said_last() -> None:
    with pytest.raises(GaveUp, match=r"the lease.*nothing moved for 0\.2 s.*last words"):
        await Waits(still_s=0.2).until(never, "the lease", lambda: Sight(1, "last words"))


@pytest.mark.asyncio
async def test_a_wait_for_a_process_that_has_ended_does_not_go_on() -> None:
    with pytest.raises(GaveUp, match="the teacher: its process has ended"):
        await Waits().until(never, "the teacher", lambda: Sight(1, has_ended=True))


@pytest.mark.asyncio
async def test_a_bound_of_its_own_ends_a_wait_without_an_error() -> None:
    assert not await Waits().until(never, "an answer", lambda: Sight(1), latest=0.0)


@pytest.mark.asyncio
async def test_a_wait_of_more_than_a_moment_is_told_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    all_waits, came = Waits(), asyncio.Event()

    async def waited() -> bool:
        return came.is_set()

    waiting = asyncio.create_task(all_waits.until(waited, "Prefect", lambda: Sight(1, "starting")))
    await asyncio.sleep(0)
    assert all_waits.lines() == []
    monkeypatch.setattr(waits, "TELL_AFTER_S", 0.0)
    assert ["Prefect" in line for line in all_waits.lines()] == [True]
    came.set()
    await waiting
    assert all_waits.lines() == []
