"""Runs that Prefect refuses, forgets, or creates without our hearing of it."""

import asyncio
import inspect
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Pending, Running
from prefect.workers import base

from flows.new_run import NewRun
from flows.resident import orphans, questions
from flows.resident.prefect_client import asking
from flows.resident.runs import ResidentRuns
from flows.resident.worker import ResidentWorker
from lectern.errors import TryAgain


class Prefect:
    """A server that answers what a test says."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.states: dict[UUID, str | None] = {}
        self.there: list[FlowRun] = []

    async def request(self, *_: Any, **__: Any) -> httpx.Response:
        assert self.error is not None
        raise self.error

    async def read_flow_runs(self, *, limit: int | None = None, offset: int = 0, **_: Any) -> list[FlowRun]:
        return self.there[offset:][:limit]

    async def set_flow_run_state(self, id_: UUID, state: Any, **_: Any) -> None:
        self.states[id_] = state.name


def runs(server: Prefect) -> ResidentRuns:
    found = ResidentRuns(cast("PrefectClient", server), {"booking": cast("Any", None)})
    found.created.know({"booking": uuid4()})
    return found


def status(code: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://prefect/api")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(code, request=request))


@pytest.mark.parametrize("error", [ObjectNotFound(Exception("404")), status(404)], ids=repr)
def test_a_deployment_that_is_gone_has_the_ids_read_anew(error: Exception) -> None:
    async def scene() -> None:
        mine = runs(Prefect(error))
        assert not mine.created.outdated.is_set()
        with pytest.raises(TryAgain):
            await mine.start(NewRun("booking", {}, "booking c-1"))
        assert mine.created.outdated.is_set()
        mine.created.know({"booking": uuid4()})
        assert not mine.created.outdated.is_set()

    asyncio.run(scene())


ODD = [
    ValueError("Expecting value"),
    KeyError("id"),
    TypeError("list"),
    httpx.ConnectError("no"),
    RuntimeError("closed"),
]


@pytest.mark.parametrize("error", ODD, ids=repr)
def test_whatever_prefect_answers_that_is_no_answer_it_is_away(error: Exception) -> None:
    """A page of a proxy, another program at its address: bookings wait, and no process ends."""

    async def scene() -> None:
        with pytest.raises(TryAgain):
            await runs(Prefect(error)).start(NewRun("booking", {}, "booking c-1"))
        with pytest.raises(TryAgain), asking():
            raise error

    asyncio.run(scene())


def test_a_run_whose_creation_was_not_heard_of_is_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it looks alive in the UI until the process begins anew."""

    async def scene() -> list[UUID]:
        server = Prefect(httpx.ReadTimeout("late"))
        mine, taken = runs(server), []
        with pytest.raises(TryAgain):
            await mine.start(NewRun("booking", {}, "booking c-1", key="k-1"))
        assert list(mine.created.unheard) == ["k-1"]
        server.there = [FlowRun(id=uuid4(), flow_id=uuid4(), name="booking c-1", state=Pending())]
        monkeypatch.setattr(mine, "take", lambda run: taken.append(run.id))
        await orphans.take_unheard(mine)
        assert list(mine.created.unheard) == []
        assert taken == [server.there[0].id]
        return taken

    assert asyncio.run(scene())


def test_all_orphans_are_adopted_however_many_there_are() -> None:
    async def scene() -> Prefect:
        server = Prefect()
        server.there = [FlowRun(id=uuid4(), flow_id=uuid4(), state=Running()) for _ in range(2 * questions.PAGE + 50)]
        assert await orphans.adopt(runs(server), "pool", "teacher") == len(server.there)
        return server

    server = asyncio.run(scene())
    assert set(server.states.values()) == {"AwaitingRetry"}
    assert len(server.states) == len(server.there)


def test_a_worker_that_connects_to_prefect_reads_no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's own would read them in the event loop, where answers wait for it; it asks by this name."""
    monkeypatch.setattr(base, "distributions", lambda: pytest.fail("packages were read"))
    assert "self._worker_metadata" in inspect.getsource(base.BaseWorker._ensure_worker_channel)
    worker = ResidentWorker(runs(Prefect()), work_pool_name="resident")
    assert asyncio.run(worker._worker_metadata()) is None
