"""A run that goes on after its process ended asks for nothing new; only a person's *Retry* does."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import State
from prefect.states import AwaitingRetry, Crashed, Failed, Pending, Running, Scheduled
from sqlalchemy import select

from flows import host as hall
from flows import prefect_api
from flows.host import Host, TeacherHost
from flows.prefect_api import DIED, STOPPED, BackgroundRuns, NewRun
from flows.resident.prefect.runs import ResidentRuns
from flows.teacher import transcoding
from flows.teacher.ecs import job
from lectern.db import transcodings
from lectern.db.engine import reading, transaction
from lectern.errors import TryAgain
from lectern.model.facts import Attempt
from lectern.model.tables.teacher import videos
from lectern.states import Backend, RenditionState, Resolution
from tests.faults import hosts
from tests.rows import ended_in

KEY = (6666, Resolution.P240)
RETRY: State[Any] = AwaitingRetry(message="Retry from the UI")
ONCE: list[State[Any]] = [Pending(), Running()]


@pytest.fixture
def teacher(teacher: TeacherHost) -> TeacherHost:
    """A teacher whose rendition has failed in its first attempt."""
    with transaction(teacher.engine) as connection:
        now = hosts.now()
        url = "http://origin.example/6666.flv"
        transcodings.begin(connection, [Attempt(*KEY, 1, 1, now, Backend.ECS, now + 60, url)], now)
        ended_in(connection, KEY, RenditionState.FAILED, now, reason="boo")
    return teacher


async def told(_host: Host[Any]) -> bool:
    return True


def attempts_after(host: TeacherHost, states: Sequence[State[Any]], monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of the rendition's last attempt after a run with these *states* was executed once more."""
    since = datetime.now(UTC) - timedelta(hours=1)
    dated = [one.model_copy(update={"timestamp": since + timedelta(seconds=at)}) for at, one in enumerate(states)]

    class Prefect:
        async def read_flow_run_states(self, _run_id: object) -> list[State[Any]]:
            return dated[::-1]

    @asynccontextmanager
    async def client() -> AsyncIterator[Prefect]:
        yield Prefect()

    monkeypatch.setattr(prefect_api, "get_client", client)
    monkeypatch.setattr(job, "publish_outbox", told)
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", str(uuid4()))
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__RUN_COUNT", str(sum(one.is_running() for one in states)))
    hall.current.set(host)
    asyncio.run(transcoding.transcode.fn(KEY[0], [KEY[1]]))
    with reading(host.engine) as connection:
        return int(connection.execute(select(videos.c.attempt)).scalar_one())


@pytest.mark.parametrize(
    "states",
    [
        [*ONCE, AwaitingRetry(message=DIED), *ONCE],
        [*ONCE, AwaitingRetry(message=STOPPED), *ONCE],
        [*ONCE, Crashed(message="silent"), AwaitingRetry(message=DIED), *ONCE],
        [*ONCE, Failed(), RETRY, *ONCE, AwaitingRetry(message=DIED), *ONCE],
        [Scheduled(), *ONCE, AwaitingRetry(message=STOPPED), *ONCE],
    ],
    ids=["killed", "stopped", "silent", "its retry was killed", "a quick run"],
)
def test_a_run_that_goes_on_begins_no_attempt_that_nobody_asked_for(
    teacher: TeacherHost, states: list[State[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rendition has failed meanwhile, or just before: the classes are refused, and nobody waits."""
    assert attempts_after(teacher, states, monkeypatch) == 1


@pytest.mark.parametrize(
    "states",
    [
        [*ONCE, Failed(), RETRY, *ONCE],
        [*ONCE, AwaitingRetry(message=DIED), *ONCE, Failed(), RETRY, *ONCE],
        [*ONCE, Failed(), RETRY, Pending(), AwaitingRetry(message=DIED), *ONCE],
    ],
    ids=["at once", "of one that was killed before", "which was killed before it began"],
)
def test_a_retry_of_a_person_begins_the_next_attempt(
    teacher: TeacherHost, states: list[State[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert attempts_after(teacher, states, monkeypatch) == 2


def test_a_prefect_that_is_away_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def client() -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(prefect_api, "get_client", client)
    with pytest.raises(TryAgain, match="away"):
        asyncio.run(prefect_api.is_retried(uuid4()))


# Runs that are begun beside the work: Prefect may be slow or away, and no recording waits for it in a line.


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


async def test_prefect_is_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is back, runs are shown again."""
    monkeypatch.setattr(prefect_api, "PATIENCE_S", 0.0)
    monkeypatch.setattr(prefect_api, "CIRCUIT_OPEN_S", 0.0)
    prefect, mine = Prefect(), BackgroundRuns()
    await _begin(mine, prefect, 1)
    prefect.is_away = False
    await _begin(mine, prefect, 1)
    assert (prefect.done, prefect.shown) == (["0"], ["0"])


def test_work_that_needs_a_run_asks_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it can be done without, so it waits for its own answer."""
    monkeypatch.setattr(prefect_api, "PATIENCE_S", 0.0)
    prefect = Prefect()
    asyncio.run(_begin(BackgroundRuns(), prefect, 2 * prefect_api.AT_ONCE, needs_run=True))
    assert prefect.asked == 2 * prefect_api.AT_ONCE
    assert prefect.done == []
