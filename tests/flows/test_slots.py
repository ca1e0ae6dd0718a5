"""How many runs of a flow are at work at once, and for how long the next one waits."""

import asyncio
import time
from uuid import UUID, uuid4

import pytest

from flows.resident.slots import Slots

OURS, OTHERS = uuid4(), uuid4()
LONG_S = 20.0

pytestmark = pytest.mark.asyncio


class Runs:
    """Runs that are over when the test says so."""

    def __init__(self) -> None:
        self.slots = Slots()
        self._over: dict[UUID, asyncio.Event] = {}

    def begin(self, deployment: UUID = OURS) -> UUID:
        """One more run is at work."""
        run_id, over = uuid4(), asyncio.Event()

        async def wait() -> None:
            await over.wait()

        self._over[run_id] = over
        self.slots.take(run_id, deployment, asyncio.create_task(wait()))
        return run_id

    def end(self, run_id: UUID) -> None:
        """It has told how it went."""
        self._over[run_id].set()

    async def room(self, at_work: int, telling: int) -> "asyncio.Task[None]":
        """Somebody waits for room, and has looked for it once."""
        waiting = asyncio.create_task(self.slots.room(OURS, at_work, telling, LONG_S))
        await asyncio.sleep(0)
        return waiting


@pytest.fixture
def runs() -> Runs:
    """No run at work."""
    return Runs()


async def test_the_first_has_room(runs: Runs) -> None:
    """Runs of other flows are in nobody's way."""
    runs.begin(OTHERS)
    await asyncio.wait_for(runs.slots.room(OURS, 1, 0, LONG_S), 1)


async def test_one_at_a_time_waits_until_the_last_is_wholly_over(runs: Runs) -> None:
    """Where few messages come, also the telling is waited for: it is what costs Prefect."""
    first = runs.begin()
    waiting = await runs.room(1, 0)
    runs.slots.tells(first)
    await asyncio.sleep(0.01)
    assert not waiting.done()
    runs.end(first)
    await asyncio.wait_for(waiting, 1)


async def test_in_a_rush_the_next_begins_while_others_tell(runs: Runs) -> None:
    """But only so many of them."""
    first, _second = runs.begin(), runs.begin()
    waiting = await runs.room(2, 2)
    assert not waiting.done()
    runs.slots.tells(first)
    await asyncio.wait_for(waiting, 1)
    for _ in range(2):
        runs.slots.tells(runs.begin())
    waiting = await runs.room(2, 2)
    await asyncio.sleep(0.01)
    assert not waiting.done(), "one is at work, but three tell how they went"
    runs.end(first)
    await asyncio.wait_for(waiting, 1)


async def test_a_run_that_hangs_holds_nobody_up_for_long(runs: Runs) -> None:
    """The patience ends; the run goes on."""
    runs.begin()
    began = time.monotonic()
    await asyncio.wait_for(runs.slots.room(OURS, 1, 0, 0.05), 10)
    assert time.monotonic() - began >= 0.05
    assert len(runs.slots.tasks()) == 1


async def test_a_run_that_is_over_is_forgotten(runs: Runs) -> None:
    """Also one that has never said that it only tells."""
    runs.end(runs.begin())
    (task,) = runs.slots.tasks()
    await asyncio.wait_for(task, 1)
    await asyncio.sleep(0)
    assert runs.slots.tasks() == set()
    await asyncio.wait_for(runs.slots.room(OURS, 1, 0, LONG_S), 1)
