"""A run that goes on after its process ended asks for nothing new; only a person's *Retry* does."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import State
from prefect.states import AwaitingRetry, Crashed, Failed, Pending, Running, Scheduled
from sqlalchemy import select

from flows import host as hall
from flows import prefect_api
from flows.host import TeacherHost
from flows.prefect_api import DIED, STOPPED
from flows.teacher import transcoding
from flows.teacher.ecs import job
from lectern.db import transcodings
from lectern.db.engine import reading, transaction
from lectern.errors import TryAgain
from lectern.model.facts import Attempt
from lectern.model.tables.teacher import videos
from lectern.states import Backend, RenditionState, Resolution
from tests.faults import hosts
from tests.rows import ended_in, unsent

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
    monkeypatch.setattr(job, "publish_outbox", unsent)
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", str(uuid4()))
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__RUN_COUNT", str(sum(one.is_running() for one in states)))
    hall.current.set(host)
    asyncio.run(transcoding.transcode.fn(KEY[0], [KEY[1]]))
    with reading(host.engine) as connection:
        return int(connection.execute(select(videos.c.attempt)).scalar_one())


RUNS: dict[str, tuple[list[State[Any]], int]] = {
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
    assert attempts_after(teacher, states, monkeypatch) == attempts


def test_a_prefect_that_is_away_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def client() -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(prefect_api, "get_client", client)
    with pytest.raises(TryAgain, match="away"):
        asyncio.run(prefect_api.is_retried(uuid4()))
