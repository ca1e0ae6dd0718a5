"""Runs that Prefect refuses, forgets, or creates without our hearing of it."""

import asyncio
import inspect
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Completed, Pending, Running, Scheduled
from prefect.workers import base

from flows import prefect_api
from flows.host import Host
from flows.prefect_api import NewRun, asking
from flows.resident.prefect import deployments, worker
from flows.resident.prefect.runs import PAGE, ResidentRuns
from flows.resident.prefect.worker import ResidentWorker
from lectern import timing
from lectern.errors import TryAgain
from tests.waiting import async_wait_until


class Prefect:
    """A server that answers what a test says."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.states: dict[UUID, str | None] = {}
        self.said: list[str] = []  # with each state
        self.there: list[FlowRun] = []

    async def request(self, *_: Any, **__: Any) -> httpx.Response:
        assert self.error is not None
        raise self.error

    async def read_flow_runs(self, *, limit: int | None = None, offset: int = 0, **_: Any) -> list[FlowRun]:
        return self.there[offset:][:limit]

    async def set_flow_run_state(self, id_: UUID, state: Any, **_: Any) -> None:
        self.states[id_] = state.name
        self.said.append(str(state.message))


def runs(server: Prefect) -> ResidentRuns:
    found = ResidentRuns(cast("PrefectClient", server), {"booking": cast("Any", None)})
    found.created.know({"booking": uuid4()})
    return found


@pytest.fixture
def host(teacher: Host[Any]) -> Host[Any]:
    return teacher


def status(code: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://prefect/api")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(code, request=request))


@pytest.mark.parametrize("error", [ObjectNotFound(Exception("404")), status(404)], ids=repr)
async def test_a_deployment_that_is_gone_has_the_ids_read_anew(error: Exception) -> None:
    mine = runs(Prefect(error))
    assert not mine.created.outdated.is_set()
    with pytest.raises(TryAgain):
        await mine.start(NewRun("booking", {}, "booking c-1"))
    assert mine.created.outdated.is_set()
    mine.created.know({"booking": uuid4()})
    assert not mine.created.outdated.is_set()


ODD = [
    ValueError("Expecting value"),
    KeyError("id"),
    TypeError("list"),
    httpx.ConnectError("no"),
    RuntimeError("closed"),
]


@pytest.mark.parametrize("error", ODD, ids=repr)
async def test_whatever_prefect_answers_that_is_no_answer_it_is_away(error: Exception) -> None:
    """A page of a proxy, another program at its address: bookings wait, and no process ends."""
    with pytest.raises(TryAgain):
        await runs(Prefect(error)).start(NewRun("booking", {}, "booking c-1"))
    with pytest.raises(TryAgain):
        async with asking():
            raise error


async def test_a_run_whose_creation_was_not_heard_of_is_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it looks alive in the UI until the process begins anew."""
    server = Prefect(httpx.ReadTimeout("late"))
    mine, taken = runs(server), []
    with pytest.raises(TryAgain):
        await mine.start(NewRun("booking", {}, "booking c-1", key="k-1"))
    assert list(mine.created.unheard) == ["k-1"]
    server.there = [FlowRun(id=uuid4(), flow_id=uuid4(), name="booking c-1", state=Pending())]
    monkeypatch.setattr(mine, "take", lambda run: taken.append(run.id))
    await worker.take_unheard(mine)
    assert list(mine.created.unheard) == []
    assert taken == [server.there[0].id]


async def test_runs_not_heard_of_are_executed_though_their_list_has_overflowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """While Prefect is asked for the first ones, it may fail to confirm as many others as are kept."""
    server = Prefect(httpx.ReadTimeout("late"))
    mine, taken = runs(server), []
    mine.created.unheard.append("k-1")
    there = FlowRun(id=uuid4(), flow_id=uuid4(), name="booking c-1", state=Pending())

    async def begun(_client: object, _keys: list[str]) -> list[FlowRun]:
        mine.created.unheard.extend(f"k-{number}" for number in range(2, 2 + (mine.created.unheard.maxlen or 0)))
        return [there]

    monkeypatch.setattr(worker, "runs_begun", begun)
    monkeypatch.setattr(mine, "take", lambda run: taken.append(run.id))
    await worker.take_unheard(mine)
    assert taken == [there.id]


class Planned(Prefect):
    """A server that takes each run, once by its key, and keeps why one was cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: dict[str, UUID] = {}  # by idempotency key
        self.ended: dict[UUID, State[Any]] = {}

    async def request(self, *_: Any, content: bytes = b"", **__: Any) -> httpx.Response:
        (wanted,) = json.loads(content)
        id_ = self.taken.setdefault(wanted["idempotency_key"], uuid4())
        results = {"results": [{"status": "CREATED", "flow_run_id": str(id_)}]}
        return httpx.Response(200, json=results, request=httpx.Request("POST", "http://prefect/api"))

    async def read_flow_run(self, id_: UUID) -> FlowRun:
        return FlowRun(id=id_, flow_id=uuid4(), state=self.ended.get(id_, Scheduled()))

    async def set_flow_run_state(self, id_: UUID, state: Any, **_: Any) -> None:
        self.ended[id_] = state


async def test_a_run_that_was_cancelled_because_it_was_outdated_is_created_anew() -> None:
    """A class that is moved to another time and back would get the run of before, whose cancel would end the class."""
    server = Planned()
    mine = ResidentRuns(cast("PrefectClient", server), {"broadcast": cast("Any", None)})
    mine.created.know({"broadcast": uuid4()})
    run = NewRun("broadcast", {}, "broadcast c-1 6666", key="c-1 at 19:00", outdated="begins at another time")

    async def planned() -> str:
        return await mine.schedule(run, 1_764_010_800.0)

    first = await planned()
    assert await planned() == first, "it may not have been heard that the run was created"
    await mine.cancel(first, "begins at another time")
    second = await planned()
    assert second != first
    assert await planned() == second
    server.ended[UUID(second)] = Completed(message="nothing to do: c-1 is waiting")
    third = await planned()
    assert third not in (first, second), "its file was lost when it began, and is there now"
    await mine.cancel(third, "cancelled in the UI")
    assert await planned() == third, "a person wants no other"


async def test_a_run_that_is_cancelled_before_its_engine_began_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect lets it not begin, and nobody else says its end: it would be *Cancelling* until the next start."""

    async def refused(_name: str, _run: FlowRun) -> State[Any]:
        return Cancelling(message="Cancelling from the UI")

    server = Prefect()
    mine = runs(server)
    monkeypatch.setattr(mine, "_engine", refused)
    deployment = mine.created.deployment("booking")
    run = FlowRun(id=uuid4(), flow_id=uuid4(), deployment_id=deployment, name="booking c-1", state=Pending())
    await mine.execute(run)
    assert server.states == {run.id: "Cancelled"}


async def test_all_orphans_are_adopted_however_many_there_are() -> None:
    server = Prefect()
    server.there = [FlowRun(id=uuid4(), flow_id=uuid4(), state=Running()) for _ in range(2 * PAGE + 50)]
    assert await worker.adopt(runs(server), "pool", "teacher") == len(server.there)
    assert set(server.states.values()) == {"AwaitingRetry"}
    assert len(server.states) == len(server.there)


async def test_a_run_that_begins_while_prefect_is_asked_is_no_orphan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect names it as running, and it is this process that runs it."""
    run = FlowRun(id=uuid4(), flow_id=uuid4(), state=Running())
    server = Prefect()
    mine = runs(server)

    async def named(*_: object) -> list[FlowRun]:
        mine._active[run.id] = cast("Any", SimpleNamespace(name=run.name))
        return [run]

    monkeypatch.setattr(worker, "runs_named", named)
    assert await worker.adopt(mine, "pool", "teacher") == 0
    assert server.states == {}


async def test_a_run_that_was_claimed_and_never_tagged_is_taken_up_after_a_while() -> None:
    """Its teacher died in between, and was started again before anybody took it for dead: it is nobody's."""
    now = datetime.now(UTC)

    def claimed(ago_s: float, *tags: str) -> FlowRun:
        state: State[Any] = Pending().model_copy(update={"timestamp": now - timedelta(seconds=ago_s)})
        return FlowRun(id=uuid4(), flow_id=uuid4(), state=state, tags=list(tags))

    server = Prefect()
    lost, fresh, tagged = claimed(worker.UNTAGGED_S + 1), claimed(5), claimed(3600, "host:a")
    server.there = [lost, fresh, tagged]
    assert await worker.adopt(runs(server), "pool", "teacher", worker.NOBODY) == 1
    assert server.states == {lost.id: "AwaitingRetry"}


async def test_a_heartbeat_that_hangs_keeps_no_later_one_from_being_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's client would wait for minutes, and the server would mark runs as silent that are at work."""
    monkeypatch.setattr(deployments, "ASK_S", 0.05)
    sent: list[object] = []
    enough = asyncio.Event()

    class Hangs(Prefect):
        async def request(self, *_: Any, json: Any = None, **__: Any) -> httpx.Response:
            sent.append(json)
            if len(sent) == 1:
                await asyncio.Event().wait()
            enough.set()
            return httpx.Response(200)

    alive = {uuid4(): "broadcast c-1"}
    beating = asyncio.create_task(deployments.beat(cast("PrefectClient", Hangs()), lambda: alive, 0.01))
    async with asyncio.timeout(5):
        await enough.wait()
    beating.cancel()
    assert len(sent) >= 2


def test_a_worker_that_connects_to_prefect_reads_no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's own would read them in the event loop, where answers wait for it; it asks by this name."""
    monkeypatch.setattr(base, "distributions", lambda: pytest.fail("packages were read"))
    assert "self._worker_metadata" in inspect.getsource(base.BaseWorker._ensure_worker_channel)
    its = ResidentWorker(runs(Prefect()), work_pool_name="resident")
    assert asyncio.run(its._worker_metadata()) is None


@pytest.mark.parametrize(
    ("given", "why"),
    [({"inbox_ids": "3 to 7"}, "is no id of the inbox"), ({"inbox_ids": "1", "of_a_newer": 1}, "of_a_newer")],
    ids=["odd ids", "a parameter of another release"],
)
async def test_a_run_whose_parameters_cannot_be_read_has_failed_and_says_why(
    host: Host[Any], caplog: pytest.LogCaptureFixture, given: dict[str, Any], why: str
) -> None:
    """A person typed them, or another release made the run; else it would be due again each second, for ever."""

    @flow(name="booking")
    async def booking(inbox_ids: str) -> None:
        pytest.fail(f"it began with {inbox_ids}")

    server = Prefect()
    mine = ResidentRuns(cast("PrefectClient", server), {"booking": booking})
    mine.created.know({"booking": uuid4()})
    mine.host = host
    deployment = mine.created.deployment("booking")
    due: State[Any] = Scheduled(scheduled_time=datetime.now(UTC))
    run = FlowRun(id=uuid4(), flow_id=uuid4(), deployment_id=deployment, name="booking x", state=due, parameters=given)
    await mine.execute(run)
    assert list(server.states.values()) == ["Failed"]
    assert [one for one in server.said if why in one]
    assert "Traceback" not in caplog.text


class Hangs(Prefect):
    """A server that takes each request and answers none."""

    asked = 0

    async def never(self, *_: Any, **__: Any) -> Any:
        self.asked += 1
        await asyncio.Event().wait()

    request = read_deployment_by_name = read_flow_runs = never


async def test_a_prefect_that_hangs_makes_no_host_stand_still(host: Host[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client would wait for seven minutes; classes are answered and aired without it, so the host is well."""
    monkeypatch.setattr(prefect_api, "ASK_S", 0.02)
    monkeypatch.setattr(worker, "UNHEARD_EVERY_S", 0.02)
    monkeypatch.setattr(timing, "FIRST_S", 0.01)
    mine = runs(server := Hangs())
    rounds: set[float] = set()

    def come() -> bool:
        rounds.update(at for loop, at in host.watchdog._at.items() if loop == "runs")
        return len(rounds) >= 3

    serving = asyncio.create_task(worker.serve(host, mine))
    await async_wait_until(come, description="it comes round three times")
    serving.cancel()
    await asyncio.wait([serving])
    assert host.prefect_away
    mine.created.unheard.append("k-1")
    with pytest.raises(TryAgain):
        await asyncio.wait_for(worker._look_after(host, mine), 10)
    assert (server.asked > 3, list(mine.created.unheard)) == (True, ["k-1"])
