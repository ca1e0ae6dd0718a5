"""One signed POST for a rendition and an attempt, however slow the OSS is and whoever else looks after it."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import redis
import stamina
from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.exc import OperationalError

from flows import host as hall
from flows.host import TeacherHost
from flows.outbox_publisher import patience
from flows.prefect_api import NewRun
from flows.teacher import maintenance, transcoding
from lectern.db import incidents, transcodings
from lectern.db.engine import transaction
from lectern.decide.transcoding import THRESHOLD, Breaker
from lectern.errors import OSS_REFUSES, FallBack
from lectern.model.facts import Attempt, RenditionKey
from lectern.model.tables.teacher import journal, videos
from lectern.states import Backend, Resolution
from tests.answering import Answer, serving
from tests.effects.redis_servers import empty_redis, host_at, redis_of_a_module
from tests.rows import commit
from tests.waiting import async_wait_until

__all__ = ["empty_redis", "redis_of_a_module"]
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

    async def start(self, run: NewRun) -> str:
        assert run.flow == "request"
        self.tasks.append(asyncio.create_task(transcoding.request.fn(**run.parameters)))
        return f"run-{len(self.tasks)}"


Opening = Callable[..., AbstractAsyncContextManager[tuple[type[SlowOss], TeacherHost]]]
"""Opens an OSS that answers so slowly and with these statuses, and a teacher that asks it."""


@pytest.fixture
def opening(client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opening:
    numbers = itertools.count(1)
    monkeypatch.setattr(transcoding, "run_id", lambda: f"owner-{next(numbers)}")
    monkeypatch.setattr(transcoding, "_door", transcoding._Door())

    @asynccontextmanager
    async def opened(answer_s: float, *statuses: int) -> AsyncIterator[tuple[type[SlowOss], TeacherHost]]:
        its = {"asked": Counter[int](), "statuses": [*statuses], "answer_s": answer_s}
        with serving(SlowOss, **its) as server:
            async with host_at(client, tmp_path) as host:
                host.settings = host.settings.model_copy(update={"oss_transcode_url": f"{server.url}/t"})
                host.runs = cast("Any", RunsHere())
                token = hall.current.set(host)
                try:
                    yield cast("type[SlowOss]", server.RequestHandlerClass), host
                finally:
                    hall.current.reset(token)

    return opened


def begin(engine: Engine, *records: int, attempt: int = 1) -> None:
    now = time.time()
    with transaction(engine) as connection:
        url = "http://origin.example/1.flv"
        attempts = [Attempt(one, P720, attempt, 1, now, Backend.OSS, now + 120, url) for one in records]
        transcodings.begin(connection, attempts, now - 60)


def row(engine: Engine) -> Any:
    return commit(engine, Connection.execute, select(videos).where(videos.c.record_id == KEY[0])).one()


async def test_a_slow_api_is_asked_once_for_each_of_240_renditions(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen are sent at a time, so the last waits its turn through many sweeps."""
    monkeypatch.setattr(maintenance, "GRACE_S", 0.0)
    async with opening(0.4) as (oss, host):
        records = range(1, 241)
        begin(host.engine, *records)
        await host.runs.start(NewRun("request", {"renditions": [(one, "720P") for one in records]}, "request"))
        tasks = cast("RunsHere", host.runs).tasks
        while not all(one.done() for one in tasks):
            await asyncio.sleep(0.5)  # no more requests come
            assert sum(oss.asked.values()) <= 240
            await maintenance._sweep(host, False)
        for one in tasks:
            one.result()
        assert oss.asked == Counter(dict.fromkeys(records, 1))
        with transaction(host.engine) as connection:
            assert connection.execute(select(videos.c.record_id).where(videos.c.requested_at.is_(None))).all() == []


def cut_off(step: str, times: int) -> Callable[..., Any]:
    """The *step*, whose transaction is ended with an error the first *times* times, after its work."""
    work, left = getattr(transcodings, step), itertools.repeat(True, times)

    def go(*args: Any) -> Any:
        found = work(*args)
        if next(left, False):
            raise OperationalError("COMMIT", None, Exception("terminating connection"), connection_invalidated=True)
        return found

    return go


@pytest.mark.parametrize("step", ["take_requests", "may_request", "note_requested"])
async def test_a_session_that_the_database_ends_costs_a_request_no_lease(
    step: str, opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it ends that of a teacher that stood still in a transaction: the run goes on by itself."""
    monkeypatch.setattr(transcodings, step, cut_off(step, 1))
    async with opening(0.0) as (oss, host):
        begin(host.engine, 1)
        await transcoding.request.fn([(1, "720P")])
        assert row(host.engine).requested_at is not None
        assert oss.asked == {1: 2 if step == "note_requested" else 1}


async def test_what_a_run_that_fails_has_taken_is_free_at_once(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = stamina.AsyncRetryingCaller(attempts=1).on(OperationalError)
    monkeypatch.setattr(transcoding, "_again", once)
    monkeypatch.setattr(transcodings, "may_request", cut_off("may_request", 1000))
    async with opening(0.0) as (oss, host):
        begin(host.engine, 1)
        with pytest.raises(OperationalError):
            await transcoding.request.fn([(1, "720P")])
        with transaction(host.engine) as connection:
            assert [one.key for one in transcodings.forgotten_requests(connection, time.time(), time.time())] == [KEY]
        assert not oss.asked


async def test_leases_are_renewed_after_the_database_was_away_for_a_moment(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcoding, "LEASE_S", 0.3)
    monkeypatch.setattr(transcodings, "keep_requests", cut_off("keep_requests", 2))
    async with opening(10.0) as (oss, host):
        begin(host.engine, 1)
        asking = asyncio.create_task(transcoding.request.fn([(1, "720P")]))
        await async_wait_until(lambda: oss.asked, description="it is asked")
        until = row(host.engine).lease_until
        await async_wait_until(lambda: row(host.engine).lease_until > until, description="the lease is renewed")
        asking.cancel()
        await asyncio.wait([asking])


async def test_what_a_run_has_taken_is_its_own_until_its_lease_ends(teacher_engine: Engine) -> None:
    """What a killed one had is taken up then; one that lives keeps what waits in its line."""
    begin(teacher_engine, 1)
    now = time.time()
    with transaction(teacher_engine) as connection:
        assert transcodings.take_requests(connection, [KEY], "killed", 60, now) == [(KEY, 1)]
        assert transcodings.forgotten_requests(connection, now, now + 59) == []
        assert transcodings.take_requests(connection, [KEY], "other", 60, now + 59) == []
        assert [one.key for one in transcodings.forgotten_requests(connection, now, now + 61)] == [KEY]
        assert transcodings.take_requests(connection, [KEY], "other", 60, now + 61) == [(KEY, 1)]
        assert not transcodings.may_request(connection, KEY, 1, "killed", now + 122), "it was only slow, and is late"
        assert transcodings.may_request(connection, KEY, 1, "other", now + 122)
        transcodings.keep_requests(connection, "other", 60, now + 150)
        assert transcodings.forgotten_requests(connection, now, now + 200) == []
        assert transcodings.may_request(connection, KEY, 1, "other", now + 260)


async def test_what_was_settled_while_it_waited_its_turn_is_not_asked_for(opening: Opening) -> None:
    """Nor does it say anything of the API: one that failed again and again is not taken for well."""
    async with opening(0.1) as (oss, host):
        begin(host.engine, 1)
        with transaction(host.engine) as connection:
            ((key, attempt),) = transcodings.take_requests(connection, [KEY], "mine", 60, time.time())
            transcodings.fall_back(connection, KEY, time.time())
        transcoding._door.breaker = down = Breaker(THRESHOLD, time.time() - 1)
        await transcoding._post(host, key, attempt, "mine")
        assert (transcoding._door.breaker, oss.asked) == (down, Counter())


async def test_a_late_answer_leaves_the_deadline_of_the_fallback_alone(opening: Opening) -> None:
    """The OSS failed while its API still made its answer: the ECS attempt has its own, longer time."""
    async with opening(0.2) as (oss, host):
        begin(host.engine, 1)
        until = time.time() + 3600
        oss.meanwhile = partial(commit, host.engine, transcodings.fall_back, KEY, time.time())
        await transcoding.request.fn([(1, "720P")])
        assert oss.asked == Counter({1: 1})
        assert row(host.engine).deadline == pytest.approx(until)
        assert row(host.engine).backend == Backend.ECS
        assert row(host.engine).requested_at is None


async def test_a_late_answer_is_not_taken_for_that_to_a_newer_attempt(opening: Opening) -> None:
    async with opening(0.2) as (oss, host):
        begin(host.engine, 1)
        oss.meanwhile = partial(begin, host.engine, 1, attempt=2)
        await transcoding.request.fn([(1, "720P")])
        assert row(host.engine).requested_at is None, "the second attempt is still to be asked for"
        with transaction(host.engine) as connection:
            connection.execute(update(videos).values(updated_at=0))
            assert [one.attempt for one in transcodings.forgotten_requests(connection, time.time(), time.time())] == [2]


@pytest.mark.parametrize(("ecs", "state"), [("", "failed"), ("ssh://us@ecs-1", "transcoding")])
async def test_what_was_to_be_asked_of_an_oss_that_is_set_up_no_more_is_settled(
    opening: Opening, monkeypatch: pytest.MonkeyPatch, ecs: str, state: str
) -> None:
    """Its URL was taken out of the settings while a request was due: no class waits for it for ever."""
    begun: list[list[RenditionKey]] = []

    async def start_ecs(_: object, keys: list[RenditionKey]) -> None:
        begun.append(keys)

    monkeypatch.setattr(transcoding, "start_ecs", start_ecs)
    async with opening(0) as (_, host):
        host.settings = host.settings.model_copy(update={"oss_transcode_url": None, "ecs_hosts": ecs})
        host.membership_cache = time.monotonic() + 3600, ("streamer1",)
        begin(host.engine, 1)
        await transcoding.request.fn([(1, "720P")])
        assert row(host.engine).status == state
        assert begun == [[KEY] if ecs else []]


async def test_a_wrong_key_is_told_at_once_and_until_a_request_is_taken(opening: Opening) -> None:
    """The fallback goes on as ever, and would hide it."""
    async with opening(0.0, 401, 403, 200) as (oss, host):

        async def asked(record: int) -> tuple[list[Any], bool]:
            begin(host.engine, record)
            commit(host.engine, transcodings.take_requests, [(record, P720)], "mine", 60, time.time())
            with suppress(FallBack):
                await transcoding._post(host, (record, P720), 1, "mine")
            with transaction(host.engine) as connection:
                told = [one for one in incidents.open_now(connection, journal) if one["code"] == OSS_REFUSES.number]
            return told, OSS_REFUSES.number in patience(host).goes_on

        (first,), goes_on = await asked(1)
        assert (first["count"], goes_on) == (1, True)
        assert "1_720P: OSS transcoding: answered 401" in first["message"]
        assert await asked(2) == ([first], True), "it is not said anew each time"
        host.ongoing.clear()  # as in a process that has just begun
        await transcoding.remember(host)
        assert OSS_REFUSES.number in patience(host).goes_on, "it goes on, and is not called resolved"
        _, goes_on = await asked(3)
        assert not goes_on
        assert oss.asked == Counter({1: 1, 2: 1, 3: 1})
