"""A run that goes on after its process ended asks for nothing new; only a person's *Retry* does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State
from prefect.states import AwaitingRetry, Crashed, Failed, Pending, Running, Scheduled
from sqlalchemy import Connection, select

from flows import host as hall
from flows import prefect_api
from flows.host import TeacherHost
from flows.prefect_api import DIED, STOPPED
from flows.teacher import transcoding
from flows.teacher.ecs import job
from lectern.errors import TryAgain
from lectern.model.tables.teacher import videos
from lectern.states import Backend, RenditionState, Resolution
from tests.faults import hosts
from tests.rows import begin, commit, ended_in, look, unsent

KEY = (6666, Resolution.P240)
RETRY: State[Any] = AwaitingRetry(message="Retry from the UI")
ONCE: list[State[Any]] = [Pending(), Running()]


@pytest.fixture
def teacher(teacher: TeacherHost) -> TeacherHost:
    """A teacher whose rendition has failed in its first attempt."""
    commit(teacher.engine, begin, KEY, by=Backend.ECS)
    commit(teacher.engine, ended_in, KEY, RenditionState.FAILED, hosts.now(), reason="boo")
    return teacher


RUNS: dict[str, tuple[list[State[Any]], int]] = {
    "begun": (ONCE, 1),
    "killed": ([*ONCE, AwaitingRetry(message=DIED), *ONCE], 1),
    "stopped": ([*ONCE, AwaitingRetry(message=STOPPED), *ONCE], 1),
    "silent": ([*ONCE, Crashed(message="silent"), AwaitingRetry(message=DIED), *ONCE], 1),
    "its retry was killed": ([*ONCE, Failed(), RETRY, *ONCE, AwaitingRetry(message=DIED), *ONCE], 1),
    "a quick run": ([Scheduled(), *ONCE, AwaitingRetry(message=STOPPED), *ONCE], 1),
    "retried": ([*ONCE, Failed(), RETRY, *ONCE], 2),
    "retried after it was killed": ([*ONCE, AwaitingRetry(message=DIED), *ONCE, Failed(), RETRY, *ONCE], 2),
    "killed before its retry began": ([*ONCE, Failed(), RETRY, Pending(), AwaitingRetry(message=DIED), *ONCE], 2),
}
"""Through which states a run went, and which attempt its rendition, whose first has failed, is at then."""


@pytest.mark.parametrize("run", RUNS)
def test_a_run_that_goes_on_begins_an_attempt_only_if_a_person_retries_it(
    teacher: TeacherHost, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its classes are refused, and nobody waits."""
    states, attempts = RUNS[run]
    since = datetime.now(UTC) - timedelta(hours=1)
    dated = [one.model_copy(update={"timestamp": since + timedelta(seconds=at)}) for at, one in enumerate(states)]
    asked: list[UUID] = []

    class Prefect:
        async def read_flow_run_states(self, run_id: UUID) -> list[State[Any]]:
            asked.append(run_id)
            return dated[::-1]

    @asynccontextmanager
    async def client() -> AsyncIterator[Prefect]:
        yield Prefect()

    monkeypatch.setattr(prefect_api, "get_client", client)
    monkeypatch.setattr(job, "publish_outbox", unsent)
    run_id, count = uuid4(), sum(one.is_running() for one in states)
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", str(run_id))
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__RUN_COUNT", str(count))
    hall.current.set(teacher)
    asyncio.run(transcoding.transcode.fn(KEY[0], [KEY[1]]))
    assert asked == [run_id] * (count > 1), "what runs for the first time was not retried"
    assert look(teacher.engine, Connection.execute, select(videos.c.attempt)).scalar_one() == attempts


def test_a_prefect_that_is_away_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def client() -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(prefect_api, "get_client", client)
    with pytest.raises(TryAgain, match="away"):
        asyncio.run(prefect_api.is_retried(uuid4()))
