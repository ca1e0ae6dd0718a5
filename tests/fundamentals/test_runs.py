"""Runs that Prefect refuses, forgets, or creates while we wait for them in vain."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock, Mock
from uuid import UUID, uuid4

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Completed, Failed, Pending, Running, Scheduled, exception_to_crashed_state

from flows import prefect_api
from flows.host import TeacherHost
from flows.prefect_api import NewRun, asking
from flows.resident.prefect import deployments, worker
from flows.resident.prefect import runs as resident_runs
from flows.resident.prefect.runs import PAGE, ResidentRuns, runs_named
from lectern import __version__, timing
from lectern.db import inbox
from lectern.errors import TryAgain
from lectern.settings import TeacherSettings
from tests.rows import said
from tests.waiting import async_wait_until


class Prefect:
    """A server that keeps the runs that it is told of, once by their keys; in trouble, or refusing, as a test says."""

    def __init__(self, error: Exception | None = None) -> None:
        self.runs: dict[str, dict[str, Any]] = {}  # by idempotency key
        self.logs: list[dict[str, Any]] = []
        self.tables: list[dict[str, Any]] = []
        self.refuses = ""  # a text in the name or the tags of a run
        self.asked = 0
        self.trouble: Callable[[str, str], Exception | int | str | None] = lambda _path, _body: error
        """Of a request: that nobody answers, the status of the answer, or the error of each run."""

        self.ended: dict[UUID, State[Any]] = {}
        self.there: list[FlowRun] = []
        self.refused: set[UUID] = set()  # runs whose state it does not change

    def well(self) -> None:
        self.trouble = lambda _path, _body: None

    def away(self) -> None:
        self.trouble = lambda _path, _body: httpx.ConnectError("away")

    async def request(self, method: str, path: str, *, content: bytes, **_: Any) -> httpx.Response:
        self.asked += 1
        body, answer = json.loads(content), {}
        found = self.trouble(path, json.dumps(body, ensure_ascii=False))
        if isinstance(found, Exception | int):
            raise found if isinstance(found, Exception) else status(found)
        if path.endswith("/bulk"):
            answer = {"results": self._create(body, found)}
        elif path.startswith("/flow_runs/"):
            (run,) = [one for one in self.runs.values() if one["id"] == path.split("/")[2]]
            run |= {name: body[name] for name in ("state", "tags") if name in body}
        elif path == "/logs/":
            self.logs += body
        else:
            self.tables.append(body)
        return httpx.Response(200, json=answer, request=httpx.Request("POST", f"http://prefect/api{path}"))

    def _create(self, asked: list[dict[str, Any]], error: str | None) -> list[dict[str, Any]]:
        assert len(asked) <= 100
        refused = [bool(self.refuses) and self.refuses in f"{one['name']} {one['tags']}" for one in asked]
        errors = [error or ("no such run" if one else None) for one in refused]
        if not any(errors):  # one transaction: else none of them was created, whatever is said of the others
            for one in asked:
                self.runs.setdefault(one["idempotency_key"], {**one, "id": str(uuid4())})
        ids = [self.runs.get(one["idempotency_key"], {}).get("id", str(uuid4())) for one in asked]
        return [
            {"flow_run_id": id_, "status": "FAILED" if why else "CREATED", "error": why}
            for id_, why in zip(ids, errors, strict=True)
        ]

    @property
    def names(self) -> list[str]:
        return sorted(one["name"] for one in self.runs.values())

    def ids(self) -> list[int]:
        """Of the inbox, in all runs together."""
        return sorted(
            id_ for one in self.runs.values() for id_ in inbox.parse_id_ranges(one["parameters"].get("inbox_ids", ""))
        )

    @property
    def states(self) -> dict[UUID, str | None]:
        return {id_: state.name for id_, state in self.ended.items()}

    async def read_flow_run(self, id_: UUID) -> FlowRun:
        return FlowRun(id=id_, flow_id=uuid4(), state=self.ended.get(id_, Scheduled()))

    async def read_flow_runs(
        self, *, flow_run_filter: Any, limit: int | None = None, offset: int = 0, **_: Any
    ) -> list[FlowRun]:
        named = flow_run_filter.state.name
        there = [one for one in self.there if named is None or (one.state and one.state.name in named.any_)]
        return there[offset:][:limit]

    async def set_flow_run_state(self, id_: UUID, state: Any, **_: Any) -> None:
        if id_ in self.refused:
            raise status(409)
        self.ended[id_] = state


def runs(server: Prefect, name: str = "booking", its: Any = None) -> ResidentRuns:
    found = ResidentRuns(cast("PrefectClient", server), {name: its})
    found.created.know({name: uuid4()})
    return found


def status(code: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://prefect/api")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(code, request=request))


GONE = [ObjectNotFound(Exception("404")), status(404)]
ODD = [ValueError("Expecting value"), KeyError("id"), httpx.ConnectError("no"), RuntimeError("closed")]


@pytest.mark.parametrize("error", [*GONE, *ODD], ids=repr)
async def test_whatever_prefect_answers_that_is_no_answer_it_is_away(error: Exception) -> None:
    """A page of a proxy, another program at its address: bookings wait, and no process ends.

    Of a deployment that is gone the ids are read anew.
    """
    mine = runs(Prefect(error))
    with pytest.raises(TryAgain):
        await mine.start(NewRun("booking", {}, "booking c-1"))
    assert mine.created.outdated.is_set() is (error in GONE)
    mine.created.know({"booking": uuid4()})
    assert not mine.created.outdated.is_set()
    with pytest.raises(TryAgain):
        async with asking():
            raise error


async def working(mine: ResidentRuns, *its: FlowRun) -> "asyncio.Future[Any]":
    """Those runs are at work."""
    executing = [mine.execute(one.model_copy(update={"deployment_id": next(iter(mine.created._flows))})) for one in its]
    work = asyncio.gather(*executing)
    await async_wait_until(lambda: len(mine.alive()) == len(its), description="they are at work")
    return work


async def for_ever(*_: Any) -> Any:
    await asyncio.Event().wait()


@pytest.mark.parametrize("at_work", [False, True])
async def test_a_run_that_was_cancelled_because_it_was_outdated_is_created_anew(
    monkeypatch: pytest.MonkeyPatch, *, at_work: bool
) -> None:
    """A class that is moved to another time and back would get the run of before, whose cancel would end the class.

    Also if the run had begun, and its engine was still asking Prefect.
    """
    server = Prefect()
    mine = runs(server, "broadcast")
    monkeypatch.setattr(mine, "_engine", for_ever)
    run = NewRun("broadcast", {}, "broadcast c-1 6666", key="c-1 at 19:00", outdated="begins at another time")
    first = await mine.schedule(run, 1e9)
    assert await mine.schedule(run, 1e9) == first, "it may not have been heard that the run was created"
    work = await working(mine, *[await server.read_flow_run(UUID(first))] * at_work)
    await mine.cancel(first, "begins at another time")
    await work
    second = await mine.schedule(run, 1e9)
    assert second != first
    assert await mine.schedule(run, 1e9) == second
    server.ended[UUID(second)] = Completed(message="nothing to do: c-1 is waiting")
    third = await mine.schedule(run, 1e9)
    assert third not in (first, second), "its file was lost when it began, and is there now"
    await mine.cancel(third, "cancelled in the UI")
    assert await mine.schedule(run, 1e9) == third, "a person wants no other"


async def test_a_run_that_is_cancelled_before_its_engine_began_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect lets it not begin, and nobody else says its end: it would be *Cancelling* until the next start."""

    async def refused(_name: str, _run: FlowRun) -> State[Any]:
        return Cancelling(message="Cancelling from the UI")

    server = Prefect()
    mine = runs(server)
    monkeypatch.setattr(mine, "_engine", refused)
    run = its_run(Pending(), deployment_id=mine.created.deployment("booking"))
    await mine.execute(run)
    assert server.states == {run.id: "Cancelled"}


@pytest.mark.parametrize("hangs", [False, True], ids=["Prefect answers", "Prefect hangs"])
async def test_a_cancel_just_before_the_process_ends_is_no_run_to_go_on_with(
    monkeypatch: pytest.MonkeyPatch, *, hangs: bool
) -> None:
    """Nobody had asked Prefect since: its run was put to *AwaitingRetry*, and the class was aired after the restart.

    A run that was cancelled before that may clear up to its end.
    """
    server, go, cleared = Prefect(), asyncio.Event(), list[UUID]()

    async def clears_up(_: str, run: FlowRun) -> None:
        try:
            await for_ever()
        except asyncio.CancelledError:
            await go.wait()
            cleared.append(run.id)
            raise

    async def ending(*_: Any, **__: Any) -> list[FlowRun]:
        return await for_ever() if hangs else [late]

    mine, (early, late, other) = runs(server), [its_run(Pending()) for _ in range(3)]
    monkeypatch.setattr(mine, "_engine", clears_up)
    monkeypatch.setattr(server, "read_flow_runs", ending)
    monkeypatch.setattr(resident_runs, "LAST_S", 0.05)
    work = await working(mine, early, late, other)
    mine.end(str(early.id), "the class was cancelled")
    draining = asyncio.create_task(mine.drain(0, 30))
    await async_wait_until(lambda: all(one.end for one in mine._active.values()), description="all are cut off")
    by_person = [mine.was_cancelled(str(run.id)) for run in (early, late, other)]
    assert by_person == [False, not hangs, False], "a class that came back meanwhile was closed, as if by a person"
    go.set()
    await draining
    await work
    assert {*cleared} == {early.id, late.id, other.id}
    goes_on = "AwaitingRetry"
    assert server.states == {early.id: "Cancelled", late.id: goes_on if hangs else "Cancelled", other.id: goes_on}


@pytest.mark.parametrize("drains", [False, True])
async def test_a_run_that_comes_to_its_end_while_it_is_cut_off_is_shown_as_it_ended(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch, *, drains: bool
) -> None:
    """It was shown as cancelled, or was to go on, which then hid that it had failed."""

    async def ends(*_: Any) -> State[Any]:
        with suppress(asyncio.CancelledError):
            await for_ever()
        return Failed(message="6666_720P: is not playable")

    server = Prefect()
    mine, run = runs(server), its_run(Pending())
    mine.host = teacher
    monkeypatch.setattr(mine, "_engine", ends)
    work = await working(mine, run)
    if drains:
        await mine.drain(0, 30)
    else:
        mine.end(str(run.id), "cancelled in the UI")
    await work
    assert server.states == {}, "its engine has said all"


def its_run(state: State[Any], age_s: float = 0.0, **more: Any) -> FlowRun:
    """A run that is in *state* for that long."""
    then = datetime.now(UTC) - timedelta(seconds=age_s)
    aged = state.model_copy(update={"timestamp": then})
    return FlowRun(id=uuid4(), flow_id=uuid4(), name="booking x", state=aged, **more)


async def test_all_orphans_are_adopted_but_for_what_begins_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are; Prefect names as running, too, what this process runs. One that it refuses hides none."""
    server = Prefect()
    server.there = [its_run(Running()) for _ in range(2 * PAGE + 50)]
    mine, (begun, refused, *others) = runs(server), server.there
    server.refused = {refused.id}

    async def late(*given: Any, **more: Any) -> list[FlowRun]:
        mine._tasks[begun.id] = cast("Any", "executes it")
        return await runs_named(*given, **more)

    monkeypatch.setattr(worker, "runs_named", late)
    assert await worker.adopt(mine, "pool", "teacher") == 1 + len(others)
    assert server.states == {one.id: "AwaitingRetry" for one in others}


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_run_whose_end_prefect_did_not_take_ends_when_prefect_is_back(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, cancelled: bool
) -> None:
    """As in an upgrade of its server: it was Silent until the next start of its host, which had been alive.

    Once: what Prefect never takes is not begun again and again.
    """
    monkeypatch.setattr(timing, "FIRST_S", 0.01)
    server, begun, over = Prefect(), asyncio.Event(), asyncio.Event()
    mine, run = runs(server), its_run(Running())
    mine.host = teacher
    known = AsyncMock(return_value={"booking": mine.created.deployment("booking")})

    async def engine(*_: Any) -> None:
        await over.wait()
        raise TryAgain("Prefect does not answer")

    async def start(*_: Any, **__: Any) -> None:
        begun.set()
        await for_ever()

    monkeypatch.setattr(mine, "_engine", engine)
    monkeypatch.setattr(worker, "poll", start)
    monkeypatch.setattr(deployments, "read", known)
    serving = asyncio.create_task(worker.serve(teacher, mine))
    await begun.wait()
    work = await working(mine, run)
    with monkeypatch.context() as gone:
        gone.setattr(server, "set_flow_run_state", AsyncMock(side_effect=httpx.ConnectError("away")))
        server.there = [run]
        if cancelled:
            mine.end(str(run.id), "the class was cancelled")
        over.set()
        await work
    ends = "Cancelled" if cancelled else "AwaitingRetry"
    await async_wait_until(lambda: server.states == {run.id: ends}, description="it ends")
    assert "its process died" not in caplog.text
    await mine.execute(run.model_copy(update={"deployment_id": next(iter(mine.created._flows))}))
    assert not mine.created.outdated.is_set()
    serving.cancel()
    await asyncio.wait([serving])


async def test_a_run_that_was_ended_with_its_process_goes_on_and_one_that_crashed_by_itself_does_not() -> None:
    """Of hundreds of classes on air, Prefect may hear of the crash that its engine sees, and no more before the end."""
    server = Prefect()
    crashed = [await exception_to_crashed_state(error) for error in (asyncio.CancelledError(), SystemExit(1))]
    server.there = [its_run(state) for state in crashed]
    assert await worker.adopt(runs(server), "pool", "streamer1") == 1
    assert server.states == {server.there[0].id: "AwaitingRetry"}


async def test_a_run_that_was_claimed_and_never_tagged_is_taken_up_after_a_while() -> None:
    """Its teacher died in between, and was started again before anybody took it for dead: it is nobody's."""
    server = Prefect()
    lost, fresh = its_run(Pending(), worker.UNTAGGED_S + 1), its_run(Pending(), 5)
    server.there = [lost, fresh, its_run(Pending(), 3600, tags=["host:a"])]
    assert await worker.adopt(runs(server), "pool", "teacher", worker.NOBODY) == 1
    assert server.states == {lost.id: "AwaitingRetry"}


class Due(Prefect):
    """A server with one run that is due, which it gives to whoever claims it."""

    def __init__(self) -> None:
        super().__init__()
        self.run = its_run(Scheduled())

    async def read_flow_run_states(self, _: UUID) -> list[State[Any] | None]:
        return [self.run.state, *self.ended.values()]

    async def read_flow_run(self, _: UUID) -> FlowRun:
        return self.run

    async def set_flow_run_state(self, id_: UUID, state: Any, **_: Any) -> Any:
        self.ended[id_] = state
        return SimpleNamespace(status=SetStateStatus.ACCEPT, state=state)

    async def update_flow_run(self, _: UUID, tags: list[str]) -> None:
        assert tags == ["host:a"]


@pytest.mark.parametrize("drains", [False, True])
async def test_a_teacher_that_drains_claims_no_run_that_another_one_can_execute(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch, *, drains: bool
) -> None:
    """It would be *Pending*, with nobody at it, until this teacher is started again or counts as dead."""
    mine, taken = runs(server := Due()), []
    mine.created.tags = ("host:a",)

    async def due(pool: str, queues: list[str], before: datetime) -> list[Any]:
        assert (pool, queues, before <= datetime.now(UTC)) == (
            teacher.settings.work_pool,
            [teacher.settings.queue],
            True,
        )
        return [SimpleNamespace(flow_run=server.run)]

    monkeypatch.setattr(mine.client, "get_scheduled_flow_runs_for_work_pool", due, raising=False)
    monkeypatch.setattr(mine, "take", lambda run: taken.append(run.id))
    if drains:
        mine.close()
    await worker.take_due(mine, teacher.settings)
    assert (server.states, taken) == (({}, []) if drains else ({server.run.id: "Pending"}, [server.run.id]))


async def test_a_queue_is_asked_as_a_worker_asks_if_a_run_is_due_or_to_show_the_host(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each such question is some writes of the server, and each host has one a second; a paused queue has no answer."""
    mine, asked = runs(server := Prefect()), AsyncMock(return_value=[])
    monkeypatch.setattr(mine.client, "get_scheduled_flow_runs_for_work_pool", asked, raising=False)
    await worker.take_due(mine, teacher.settings, shows=False)
    assert not asked.called
    await worker.take_due(mine, teacher.settings, shows=True)
    assert asked.call_count == 1
    server.there = [await server.read_flow_run(uuid4())]
    await worker.take_due(mine, teacher.settings, shows=False)
    assert asked.call_count == 2


async def test_many_runs_may_take_longer_to_claim_than_prefect_has_to_answer(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a teacher that died: a claim that was cut off left its run *Pending*, with nobody at it."""
    monkeypatch.setattr(prefect_api, "ASK_S", 1.0)
    mine, taken = runs(Prefect()), list[int]()

    async def claims(_: ResidentRuns, run: Any) -> Any:
        await asyncio.sleep(0.15)
        return run

    due = AsyncMock(return_value=[SimpleNamespace(flow_run=number) for number in range(10)])
    monkeypatch.setattr(mine.client, "send_worker_heartbeat", AsyncMock(), raising=False)
    monkeypatch.setattr(mine.client, "get_scheduled_flow_runs_for_work_pool", due, raising=False)
    monkeypatch.setattr(worker, "_claimed", claims)
    monkeypatch.setattr(mine, "take", taken.append)
    polling = asyncio.create_task(worker.poll(teacher, mine))
    await async_wait_until(lambda: len(taken) >= 10, description="so many are claimed")
    polling.cancel()
    assert taken[:10] == [*range(10)]


async def test_a_heartbeat_that_hangs_keeps_no_later_one_from_being_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's client would wait for minutes, and the server would mark runs as silent that are at work."""
    monkeypatch.setattr(deployments, "ASK_S", 0.05)
    server, alive = Hangs(), {uuid4(): "broadcast c-1"}
    beating = asyncio.create_task(deployments.beat(cast("PrefectClient", server), lambda: alive, 0.01))
    await async_wait_until(lambda: server.asked >= 2, description="a later one is sent")
    beating.cancel()


@pytest.mark.parametrize("is_away", [True, False])
async def test_a_queue_that_cannot_be_polled_is_polled_again_and_calls_somebody_if_prefect_is_there(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch, *, is_away: bool
) -> None:
    """While it is away, that is said elsewhere, and a person was called as for a fault of ours."""
    monkeypatch.setattr(worker, "LOOK_S", 0.01)
    mine, asked = runs(Prefect()), AsyncMock(side_effect=httpx.ConnectError("away"))
    monkeypatch.setattr(mine.client, "send_worker_heartbeat", asked, raising=False)
    teacher.prefect_away = is_away  # as `listen` notes meanwhile
    polling = asyncio.create_task(worker.poll(teacher, mine))
    await async_wait_until(lambda: asked.call_count > worker.POLLS or polling.done(), description="polls fail")
    assert polling.done() is not is_away
    polling.cancel()
    await asyncio.wait([polling])
    assert polling.cancelled() or isinstance(polling.exception(), httpx.ConnectError)


async def test_a_database_of_prefect_that_begins_anew_calls_nobody(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect is there meanwhile, and fails: after three polls, within ten seconds, it was an alarm."""
    fails = [httpx.ReadError("500")] * int(worker.ALARM_AFTER_S / worker.LOOK_S)
    monkeypatch.setattr(worker, "LOOK_S", 0.01)
    mine, due = runs(Prefect()), AsyncMock(return_value=[])
    monkeypatch.setattr(mine.client, "send_worker_heartbeat", AsyncMock(side_effect=[*fails, None]), raising=False)
    monkeypatch.setattr(mine.client, "get_scheduled_flow_runs_for_work_pool", due, raising=False)
    polling = asyncio.create_task(worker.poll(teacher, mine))
    await async_wait_until(lambda: due.called or polling.done(), description="it is polled again, or given up")
    assert not polling.done()
    polling.cancel()


async def test_prefect_that_is_away_is_an_alarm_although_its_queue_is_polled_on(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It retried for a quarter of an hour, in which nobody was told that no class can be moved."""
    monkeypatch.setattr(timing, "FIRST_S", 0.01)
    monkeypatch.setattr(worker, "LOOK_S", 0.01)
    monkeypatch.setattr(worker, "ALARM_AFTER_S", 0.0)
    begun = asyncio.Event()

    async def start(*_: Any, **__: Any) -> None:
        begun.set()
        await for_ever()

    monkeypatch.setattr(worker, "poll", start)
    monkeypatch.setattr(deployments, "read", AsyncMock(return_value={"booking": uuid4()}))
    mine = runs(server := Prefect())
    serving = asyncio.create_task(worker.serve(teacher, mine))
    await begun.wait()
    asked = Mock(wraps=mine.cancelled)
    monkeypatch.setattr(mine, "cancelled", asked)
    teacher.prefect_away = True  # as `listen` notes of its health
    await async_wait_until(lambda: asked.call_count > 1, description="it is asked itself, and answers")
    assert said(teacher, "alarm") == []
    begun.clear()
    with monkeypatch.context() as gone:
        gone.setattr(server, "read_flow_runs", AsyncMock(side_effect=httpx.ConnectError("away")))
        await async_wait_until(lambda: said(teacher, "alarm"), description="an alarm is raised")
    await asyncio.wait_for(begun.wait(), 30)
    serving.cancel()
    await asyncio.wait([serving])


class Deployed(Prefect):
    """A server that has all that a teacher needs, with its deployments in the work pool *pool*."""

    def __init__(self, settings: TeacherSettings, pool: str) -> None:
        super().__init__()
        self.settings, self.pool = settings, pool

    async def read_deployment_by_name(self, _: str) -> Any:
        place = {"work_pool_name": self.pool, "work_queue_name": self.settings.queue}
        return SimpleNamespace(id=uuid4(), version=__version__, **place)

    async def read_work_pool(self, name: str) -> Any:
        return SimpleNamespace(name=name, type="resident", base_job_template=deployments.NO_JOB)

    async def read_work_queue_by_name(self, *_: str, **__: str) -> Any:
        return SimpleNamespace(is_paused=True)

    async def read_automations_by_name(self, _: str) -> list[Any]:
        return [deployments.silent_runs(self.settings.run_heartbeat_s)]


@pytest.mark.parametrize("pool", ["resident", "another"])
async def test_deployments_whose_runs_come_into_a_pool_that_nobody_polls_are_made_anew(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    """As after a change of WORK_POOL: `lectern init` found nothing to do, and no *Retry* and no quick run began."""
    made: list[str] = []

    async def make(_: TeacherSettings, its: Any) -> None:
        made.append(its.name)

    monkeypatch.setattr(deployments, "_make_deployment", make)
    server = cast("PrefectClient", Deployed(teacher.settings, pool))
    assert await deployments.read(server, teacher.settings)
    missing = await deployments._missing(server, teacher.settings)
    assert len(made) == len(missing) == (0 if pool == teacher.settings.work_pool else len(deployments.TEACHER))


@pytest.mark.parametrize(
    ("given", "why"),
    [({"inbox_ids": "3 to 7"}, "is no id of the inbox"), ({"inbox_ids": "1", "of_a_newer": 1}, "of_a_newer")],
    ids=["odd ids", "a parameter of another release"],
)
async def test_a_run_whose_parameters_cannot_be_read_has_failed_and_says_why(
    teacher: TeacherHost, caplog: pytest.LogCaptureFixture, given: dict[str, Any], why: str
) -> None:
    """A person typed them, or another release made the run; else it would be due again each second, for ever."""

    @flow(name="booking")
    async def booking(inbox_ids: str) -> None:
        pytest.fail(f"it began with {inbox_ids}")

    server = Prefect()
    mine = runs(server, its=booking)
    mine.host = teacher
    due: State[Any] = Scheduled(scheduled_time=datetime.now(UTC))
    run = its_run(due, deployment_id=mine.created.deployment("booking"), parameters=given)
    await mine.execute(run)
    assert list(server.states.values()) == ["Failed"]
    assert [one for one in server.ended.values() if why in str(one.message)]
    assert "Traceback" not in caplog.text


class Hangs(Prefect):
    """A server that takes each request and answers none."""

    async def never(self, *_: Any, **__: Any) -> Any:
        self.asked += 1
        await asyncio.Event().wait()

    request = read_deployment_by_name = read_flow_runs = never


async def test_a_prefect_that_hangs_makes_no_host_stand_still(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client would wait for seven minutes; classes are answered and aired without it, so the host is well."""
    monkeypatch.setattr(prefect_api, "ASK_S", 0.02)
    monkeypatch.setattr(worker, "LOOK_S", 0.02)
    monkeypatch.setattr(timing, "FIRST_S", 0.01)
    mine = runs(server := Hangs())
    rounds: set[float] = set()

    def come() -> bool:
        rounds.update(at for loop, at in teacher.watchdog._at.items() if loop == "runs")
        return len(rounds) >= 3

    serving = asyncio.create_task(worker.serve(teacher, mine))
    await async_wait_until(come, description="it comes round three times")
    serving.cancel()
    await asyncio.wait([serving])
    assert teacher.prefect_away
    with pytest.raises(TryAgain):
        await asyncio.wait_for(worker._look_after(teacher, mine), 10)
    assert server.asked > 3
