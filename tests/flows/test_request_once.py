"""One signed POST for a rendition and an attempt, however slow the OSS is and whoever else looks after it."""

import asyncio
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock, call

import pytest
import stamina
from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.exc import OperationalError

from flows.host import TeacherHost
from flows.outbox_publisher import patience
from flows.prefect_api import NewRun
from flows.teacher import maintenance, transcoding
from flows.teacher.transcoding import PAUSE_S, THRESHOLD
from lectern.db import incidents, transcodings
from lectern.db.engine import transaction
from lectern.errors import OSS_REFUSES, FallBack, TryAgain
from lectern.model.facts import RenditionKey
from lectern.model.tables.teacher import videos
from lectern.states import Backend, Resolution
from tests.answering import Answer, serving
from tests.faults.turns import Quiet
from tests.rows import begin, commit
from tests.waiting import async_wait_until

P720 = Resolution.P720
KEY: RenditionKey = (1, P720)


class SlowOss(Answer):
    """A transcoder's API that takes its time, and counts how often it is asked for each record."""

    asked: Counter[int]
    statuses: list[int]  # of its next answers
    answer_s: float
    meanwhile: Callable[[], object] = staticmethod(lambda: None)  # called while an answer is made

    def answer(self) -> None:
        self.asked[json.loads(self.sent())["record_id"]] += 1
        time.sleep(self.answer_s)
        type(self).meanwhile()
        self.say(self.statuses.pop(0) if self.statuses else 200)


class RunsHere:
    """Runs of the flow ``request``, as tasks of this test."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        self.ending = False

    def draining(self) -> bool:
        return self.ending

    async def start(self, run: NewRun) -> str:
        assert run.flow == "request"
        self.tasks.append(asyncio.create_task(transcoding.request.fn(**run.parameters)))
        return f"run-{len(self.tasks)}"


@pytest.fixture
def oss(teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[SlowOss]]:
    """An OSS that answers at once, which the teacher asks."""
    numbers = itertools.count(1)
    monkeypatch.setattr(transcoding, "run_id", lambda: f"owner-{next(numbers)}")
    monkeypatch.setattr(transcoding, "_door", transcoding._Door())
    monkeypatch.setattr(transcoding, "current", SimpleNamespace(get=lambda: teacher))
    teacher.bus, teacher.runs = cast("Any", Quiet()), cast("Any", RunsHere())
    with serving(SlowOss, asked=Counter[int](), statuses=[], answer_s=0.0) as server:
        teacher.settings = teacher.settings.model_copy(update={"oss_transcode_url": f"{server.url}/t"})
        yield cast("type[SlowOss]", server.RequestHandlerClass)


def row(engine: Engine) -> Any:
    return commit(engine, Connection.execute, select(videos).where(videos.c.record_id == KEY[0])).one()


async def test_a_slow_api_is_asked_once_for_each_of_240_renditions(
    teacher: TeacherHost, oss: type[SlowOss], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen are sent at a time, so the last waits its turn through many sweeps, which begin no run beside its own."""
    monkeypatch.setattr(maintenance, "GRACE_S", 0.0)
    oss.answer_s = 0.4
    keys = [(one, P720) for one in range(1, 241)]
    commit(teacher.engine, begin, *keys, in_s=3600)
    await teacher.runs.start(NewRun("request", {"renditions": keys}, "request"))
    tasks = cast("RunsHere", teacher.runs).tasks
    await async_wait_until(lambda: oss.asked, description="the run has read what it is to ask for")
    while not all(one.done() for one in tasks):
        await asyncio.sleep(0.5)  # no more requests come
        assert sum(oss.asked.values()) <= 240
        await maintenance._sweep(teacher, False)
    assert [one.result().message for one in tasks] == ["240 asked for"]
    assert oss.asked == Counter(record for record, _ in keys)
    with transaction(teacher.engine) as connection:
        assert connection.execute(select(videos.c.record_id).where(videos.c.requested_at.is_(None))).all() == []


async def test_a_request_waits_until_it_is_leased(
    teacher: TeacherHost, oss: type[SlowOss], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then it would look forgotten to a sweep, though it is its turn already."""
    waits, work = list[bool](), transcodings.take_request

    def take(*given: Any) -> bool:
        waits.append(transcoding.requests_wait())
        return work(*given)

    monkeypatch.setattr(transcodings, "take_request", take)
    oss.meanwhile = lambda: waits.append(transcoding.requests_wait())
    commit(teacher.engine, begin, KEY)
    assert (await transcoding.request.fn([(1, "720P")])).is_completed()
    assert waits == [True, False]


def cut_off(step: str, times: int) -> Callable[..., Any]:
    """The *step*, whose transaction is ended with an error the first *times* times, after its work."""
    work, left = getattr(transcodings, step), itertools.repeat(True, times)

    def go(*args: Any) -> Any:
        found = work(*args)
        if next(left, False):
            raise OperationalError("COMMIT", None, Exception("terminating connection"), connection_invalidated=True)
        return found

    return go


@pytest.mark.parametrize("step", ["take_request", "note_requested"])
async def test_a_session_that_the_database_ends_costs_a_request_no_lease(
    step: str, teacher: TeacherHost, oss: type[SlowOss], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it ends that of a teacher that stood still in a transaction: the run goes on by itself."""
    monkeypatch.setattr(transcodings, step, cut_off(step, 1))
    leases: list[float] = []
    commit(teacher.engine, begin, KEY)
    oss.meanwhile = lambda: leases.append(row(teacher.engine).lease_until)
    assert (await transcoding.request.fn([(1, "720P")])).is_completed()
    asked = row(teacher.engine)
    assert asked.deadline == pytest.approx(asked.requested_at + teacher.settings.transcoding_time_out_s)
    assert oss.asked == {1: 1}, "nor is it paid twice"
    assert min(leases) > asked.requested_at, "nobody else asks meanwhile"


async def test_what_a_run_that_fails_has_taken_is_free_at_once(
    teacher: TeacherHost, oss: type[SlowOss], monkeypatch: pytest.MonkeyPatch
) -> None:
    once = stamina.AsyncRetryingCaller(attempts=1).on(OperationalError)
    monkeypatch.setattr(transcoding, "_again", once)
    monkeypatch.setattr(transcodings, "take_request", cut_off("take_request", 1000))
    commit(teacher.engine, begin, KEY)
    with pytest.raises(OperationalError):
        await transcoding.request.fn([(1, "720P")])
    with transaction(teacher.engine) as connection:
        assert [one.key for one in transcodings.forgotten_requests(connection, time.time(), time.time())] == [KEY]
    assert not oss.asked


async def test_what_the_oss_takes_from_a_run_that_is_cancelled_is_asked_for_by_no_other(
    teacher: TeacherHost, oss: type[SlowOss]
) -> None:
    """By a person, or because the process ends: the sweeper asked for it again, and each request is paid."""
    answers = threading.Event()
    oss.meanwhile = answers.wait
    commit(teacher.engine, begin, KEY, (2, P720))
    asking = asyncio.create_task(transcoding.request.fn([(1, "720P")]))
    await async_wait_until(lambda: oss.asked, description="it is asked")
    asking.cancel()
    await asyncio.wait({asking}, timeout=0.1)  # it waits for the answer
    answers.set()
    await asyncio.wait({asking})
    commit(teacher.engine, Connection.execute, update(videos).values(updated_at=0))
    forgotten = commit(teacher.engine, transcodings.forgotten_requests, time.time(), time.time())
    assert (asking.cancelled(), [one.record_id for one in forgotten]) == (True, [2])


async def test_a_process_that_ends_asks_for_no_more_though_its_run_has_more_to_ask_for(
    teacher: TeacherHost, oss: type[SlowOss]
) -> None:
    """What a slow OSS took as the process ended would be asked for again by the next one, and each request is paid."""
    transcoding._door.at_once = asyncio.Semaphore(1)
    oss.meanwhile = lambda: setattr(teacher.runs, "ending", True)
    commit(teacher.engine, begin, KEY, (2, P720))
    await transcoding.request.fn([(1, "720P"), (2, "720P")])
    assert oss.asked.total() == 1
    (asked,) = oss.asked
    commit(teacher.engine, Connection.execute, update(videos).values(updated_at=0))
    forgotten = commit(teacher.engine, transcodings.forgotten_requests, time.time(), time.time())
    assert [one.record_id for one in forgotten] == [3 - asked], "the next process asks for it"


async def test_what_was_settled_while_it_waited_its_turn_is_not_asked_for(
    teacher: TeacherHost, oss: type[SlowOss]
) -> None:
    """Nor does it say anything of the API: one that failed again and again is not taken for well."""
    commit(teacher.engine, begin, KEY)
    with transaction(teacher.engine) as connection:
        (due,) = transcodings.open_requests(connection, [KEY], "mine", time.time())
        transcodings.fall_back(connection, KEY, time.time())
    transcoding._door.failures = THRESHOLD
    await transcoding._post(teacher, due, "mine")
    assert (transcoding._door.failures, oss.asked) == (THRESHOLD, Counter())


@pytest.mark.parametrize("again", [False, True], ids=["the fallback", "the second attempt"])
async def test_a_late_answer_is_taken_for_that_to_its_own_attempt_alone(
    teacher: TeacherHost, oss: type[SlowOss], caplog: pytest.LogCaptureFixture, *, again: bool
) -> None:
    """The OSS failed while its API still made its answer: what is made on ECS has its own, longer time."""
    caplog.set_level("INFO", "lectern")
    oss.answer_s = 0.2
    commit(teacher.engine, begin, KEY)
    until = time.time() + 3600
    befalls: Any = partial(begin, attempt=2) if again else partial(transcodings.fall_back, now=time.time())
    oss.meanwhile = partial(commit, teacher.engine, befalls, KEY)
    await transcoding.request.fn([(1, "720P")])
    its = row(teacher.engine)
    assert (its.requested_at, oss.asked, "its attempt is over" in caplog.text) == (None, {1: 1}, True)
    commit(teacher.engine, Connection.execute, update(videos).values(updated_at=0))
    forgotten = commit(teacher.engine, transcodings.forgotten_requests, time.time(), time.time())
    assert [one.attempt for one in forgotten] == [2] * again, "the second attempt is still to be asked for"
    assert again or (its.backend, its.deadline) == (Backend.ECS, pytest.approx(until))


async def test_an_oss_that_fails_again_and_again_is_left_alone_where_there_is_another_way(
    teacher: TeacherHost, caplog: pytest.LogCaptureFixture
) -> None:
    door = transcoding._Door()

    async def asked(ecs: str) -> None:
        teacher.settings = teacher.settings.model_copy(update={"ecs_hosts": ecs})
        async with door.passed(teacher, "1_720P"):
            raise TryAgain("no route to host")

    for _ in range(THRESHOLD):
        assert caplog.records == []
        with pytest.raises(TryAgain):
            await asked("ssh://us@ecs-1")
    (said,) = caplog.records
    assert isinstance(said.args, tuple)
    assert said.args[0] == PAUSE_S
    with pytest.raises(FallBack):
        await asked("ssh://us@ecs-1")
    with pytest.raises(TryAgain):
        await asked("")
    door.closed_until = 0.0
    async with door.passed(teacher, "1_720P"):
        with pytest.raises(FallBack):
            await asked("ssh://us@ecs-1")  # one request tries it out
    with pytest.raises(TryAgain):
        await asked("ssh://us@ecs-1")


@pytest.mark.parametrize(("ecs", "state"), [("", "failed"), ("ssh://us@ecs-1", "transcoding")])
async def test_what_was_to_be_asked_of_an_oss_that_is_set_up_no_more_is_settled(
    teacher: TeacherHost, oss: type[SlowOss], monkeypatch: pytest.MonkeyPatch, ecs: str, state: str
) -> None:
    """Its URL was taken out of the settings while a request was due: no class waits for it for ever."""
    monkeypatch.setattr(transcoding, "start_ecs", start_ecs := AsyncMock())
    teacher.settings = teacher.settings.model_copy(update={"oss_transcode_url": None, "ecs_hosts": ecs})
    commit(teacher.engine, begin, KEY)
    assert (await transcoding.request.fn([(1, "720P")])).is_failed()
    assert row(teacher.engine).status == state
    assert start_ecs.await_args_list == ([call(teacher, [KEY])] if ecs else [])


async def test_a_wrong_key_is_told_at_once_and_until_a_request_is_taken(
    teacher: TeacherHost, oss: type[SlowOss]
) -> None:
    """The fallback goes on as ever, and would hide it."""
    oss.statuses += [401, 403, 200]

    async def asked(record: int) -> tuple[list[Any], bool]:
        commit(teacher.engine, begin, (record, P720))
        (due,) = commit(teacher.engine, transcodings.open_requests, [(record, P720)], "mine", time.time())
        with suppress(FallBack):
            await transcoding._post(teacher, due, "mine")
        with transaction(teacher.engine) as connection:
            told = [one for one in incidents.open_now(connection) if one.code == OSS_REFUSES.number]
        return told, OSS_REFUSES.number in patience(teacher).goes_on

    (first,), goes_on = await asked(1)
    assert (first.count, goes_on) == (1, True)
    assert "1_720P: OSS transcoding: answered 401" in first.message
    assert await asked(2) == ([first], True), "it is not said anew each time"
    teacher.ongoing.clear()  # as in a process that has just begun
    await transcoding.remember(teacher)
    assert OSS_REFUSES.number in patience(teacher).goes_on, "it goes on, and is not called resolved"
    _, goes_on = await asked(3)
    assert not goes_on
    assert oss.asked == Counter({1: 1, 2: 1, 3: 1})
