"""A transcoding on an ECS host is looked after every few seconds, and written down far more seldom."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import OperationalError

from flows import artifacts
from flows.host import TeacherHost
from flows.teacher import transcoding
from flows.teacher.ecs import job as work
from flows.teacher.ecs.job import LEASE_S, TranscodeJob
from lectern.db import bookings, events, transcodings
from lectern.db.account import at_teacher
from lectern.db.engine import transaction
from lectern.db.transcodings import BegunJob
from lectern.ecs import detached, ssh, transcode
from lectern.ecs.transcode import JobOutcome
from lectern.model.facts import Attempt
from lectern.model.tables.teacher import journal, orders, videos
from lectern.rendition_ids import stem
from lectern.states import Backend, BookingState, Resolution
from tests import strategies
from tests.rows import commit, look
from tests.waiting import cancelled

RECORD, OURS, SERVER = 6666, "run-1", "ssh://us@ecs-1:22"
LIMIT_S = 24 * 3600


class Job:
    """A job on its host; the test lets its time pass."""

    def __init__(self, host: TeacherHost) -> None:
        self.host, self.writes = host, 0
        now, key = time.time(), (RECORD, Resolution.P240)
        url = "http://origin.example/6666.flv"
        with transaction(host.engine) as connection:
            starts = now + LIMIT_S
            booked = strategies.booking(
                "c-1", record_id=RECORD, video_resolution="240P", start_time=starts, end_time=starts + 60
            )
            bookings.add(connection, [(booked, BookingState.WAITING)], now)
            transcodings.begin(connection, [Attempt(*key, 1, 1, now, Backend.ECS, now + LIMIT_S, url)], now)
            due = transcodings.take(connection, [key], OURS, LEASE_S, now)
        host.settings = host.settings.model_copy(update={"ecs_hosts": SERVER})
        self.kept = TranscodeJob(host, due, OURS)
        self.kept.wanted = True
        self.report, self.place = self.kept.report, BegunJob(SERVER, work.remote_job(host.settings, due).name, now)
        commit = host.write_tx

        async def counted(work: Callable[..., Any], *args: Any) -> Any:
            self.writes += 1
            return await commit(work, *args)

        host.write_tx = counted  # type: ignore[assignment,method-assign]

    def beats(self, seconds: int) -> list[str | None]:
        """What is said in so many seconds in which the encoding goes on."""

        async def beat() -> list[str | None]:
            said = []
            for _ in range(seconds // int(work.BEAT_S)):
                self.kept._renewed_at -= work.BEAT_S
                said.append(await self.kept.beat(self.place))
            return said

        return asyncio.run(beat())

    def row(self) -> dict[str, Any]:
        return dict(self.read(Connection.execute, select(videos)).mappings().one())

    def read(self, work: Callable[..., Any], *args: object) -> Any:
        return look(self.host.engine, work, *args)

    def change(self, work: Callable[..., object], *args: object) -> None:
        commit(self.host.engine, work, *args)


@pytest.fixture
def job(teacher: TeacherHost) -> Job:
    return Job(teacher)


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that were ended on their host, which lets us in; nobody waits for its beats, and nothing is shown."""
    names: list[str] = []

    async def ended(_: object, _root: str, name: str) -> None:
        names.append(name)

    monkeypatch.setattr(work, "BEAT_S", 0.01)
    monkeypatch.setattr(work, "connect", lambda *_: nullcontext(SimpleNamespace(host="ecs-1")))
    monkeypatch.setattr(detached, "leave", ended)
    monkeypatch.setattr(artifacts, "ProgressBar", lambda *_: nullcontext(SimpleNamespace(set=lambda _: None)))
    return names


def test_its_lease_is_renewed_four_times_as_often_as_it_must_be(job: Job) -> None:
    job.report.step = "encode"
    job.beats(300)
    assert 3 * 300 / LEASE_S < job.writes <= 2 + 300 / work.RENEW_S
    assert work.RENEW_S * 4 == LEASE_S


@pytest.mark.parametrize("loudness", ["", "it was -31.0 LUFS, now -16.0 LUFS"])
def test_what_became_of_its_loudness_is_in_the_story_of_its_classes(job: Job, loudness: str) -> None:
    job.report.loudness = loudness
    job.change(job.kept._results, job.kept.due, {Resolution.P240: "http://made"}, None)
    story = [(one.what, one.detail) for one in job.read(at_teacher, "teacher", "c-1").events]
    assert [detail for what, detail in story if what == "loudness"] == ([loudness] if loudness else [])
    assert story[-1] == ("ECS transcoding ended", "http://made")


def test_what_stands_still_only_keeps_its_lease(job: Job) -> None:
    job.report.step = "upload"
    job.beats(4)
    before = job.row()
    job.change(Connection.execute, update(videos).values(lease_until=0))
    job.writes = 0
    assert set(job.beats(600)) == {None}
    assert job.writes <= 600 / work.RENEW_S
    assert job.row()["lease_until"] >= before["lease_until"]


def test_a_step_is_written_at_once(job: Job) -> None:
    for step in ("fetch", "encode"):
        job.report.step = step
        job.beats(4)
        assert job.row()["step"] == step


def test_it_ends_at_the_next_beat_when_another_has_it_or_it_is_settled(job: Job) -> None:
    assert job.beats(8) == [None, None]
    job.change(Connection.execute, update(videos).values(owner="run-2", lease_until=1e12))
    assert job.beats(4) == [work.TAKEN]
    job.change(Connection.execute, update(videos).values(owner=None, status="available"))
    assert job.beats(4) == [work.SETTLED]


def test_it_ends_at_the_next_beat_when_its_last_class_is_cancelled(job: Job) -> None:
    job.change(lambda connection: connection.execute(update(orders).values(state=BookingState.CANCELLED)))
    assert job.beats(4) == [work.UNWANTED]
    assert job.row()["reason"] == work.UNWANTED
    assert job.row()["attempts_today"] == 0, "it did not fail, so its record can be booked again"


def test_a_run_that_is_retried_while_another_makes_it_names_that_one_and_ends(job: Job) -> None:
    state = asyncio.run(transcoding.work_on_ecs(job.host, RECORD, [Resolution.P240], "run-2", again=True))
    mine = partial(events.of_thing, class_id="", stems=[stem(RECORD, Resolution.P240)])
    told = job.read(mine, journal)
    assert [(one.what, one.detail) for one in told][-1:] == [("retried", "by Prefect")]
    assert state.is_completed()
    assert OURS in str(state.message)
    assert job.row()["owner"] == OURS


def test_a_database_that_is_away_ends_no_job(job: Job, left: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else can take it over meanwhile; it would be begun anew, with less time left."""
    commit, failed, done = job.host.write_tx, 0, asyncio.Event()

    async def away_at_first(work: Callable[..., Any], *args: Any) -> Any:
        nonlocal failed
        if failed < 3:
            failed += 1
            raise OperationalError("UPDATE video_list", {}, ConnectionError("the server is restarted"))
        done.set()
        return await commit(work, *args)

    async def made(*_: object) -> JobOutcome:
        await done.wait()
        return JobOutcome({Resolution.P240: "http://oss.example/up"}, {})

    async def told(_host: object) -> None:
        assert (job.row()["step"], left) == (transcodings.PUBLISHED, [])

    monkeypatch.setattr(job.host, "write_tx", away_at_first)
    monkeypatch.setattr(work, "publish_outbox", told)
    monkeypatch.setattr(transcode, "transcode", made)
    assert asyncio.run(at_work(job)) == {}
    assert (failed, left) == (3, [job.place.job])


def test_a_job_is_ended_on_its_host_when_its_last_class_is_cancelled(
    job: Job, left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(*_: object) -> JobOutcome:
        job.change(lambda connection: connection.execute(update(orders).values(state=BookingState.CANCELLED)))
        await asyncio.Event().wait()
        return JobOutcome({}, {})

    monkeypatch.setattr(transcode, "transcode", hangs)
    with pytest.raises(work.NoLongerOurs, match=work.UNWANTED):
        asyncio.run(at_work(job))
    assert left == [job.place.job]


@pytest.mark.parametrize("drains", [False, True])
async def test_a_job_that_is_cancelled_while_its_host_is_sought_again_is_ended_there(
    job: Job, left: list[str], monkeypatch: pytest.MonkeyPatch, drains: bool
) -> None:
    """A host that does not answer is waited for mostly in a login; only a process that ends leaves its job there."""
    logins, hangs = 0, asyncio.Event()

    @asynccontextmanager
    async def connect(*_: object) -> AsyncIterator[object]:
        nonlocal logins
        logins += 1
        if logins == 2:
            hangs.set()
            await asyncio.Event().wait()
        yield SimpleNamespace(host="ecs-1")

    async def cut_off(*_: object) -> JobOutcome:
        raise ssh.Lost("ecs-1: the connection is lost")

    async def at_once(_: int) -> None:
        """There is no pause."""

    monkeypatch.setattr(work, "connect", connect)
    monkeypatch.setattr(work, "pause", at_once)
    monkeypatch.setattr(transcode, "transcode", cut_off)
    running = asyncio.create_task(at_work(job, drains=drains))
    await hangs.wait()
    await cancelled(running)
    assert len(left) == (0 if drains else 1)


@pytest.mark.parametrize("reached", [True, False])
async def test_a_job_that_is_another_one_after_a_restart_waits_for_no_place_of_its_own(
    job: Job, left: list[str], monkeypatch: pytest.MonkeyPatch, *, reached: bool
) -> None:
    """A setting changed, or a part of it is made: what runs there cannot be resumed, and held the only place."""

    async def lost(*_: object) -> None:
        raise ssh.Lost("ecs-1: the connection is lost")

    if not reached:
        monkeypatch.setattr(detached, "leave", lost)
    monkeypatch.setattr(work, "LOOK_S", 0.01)
    job.change(transcodings.attach, job.kept.due, OURS, job.place)
    again = {"max_ecs_jobs": 1, "public_url": "http://another.example"}
    job.host.settings = job.host.settings.model_copy(update=again)
    due = job.read(transcodings.under_way)
    place = await asyncio.wait_for(work.HostQueue().place(TranscodeJob(job.host, due, OURS)), 5)
    assert (place.host, job.row()["ecs_job"]) == (SERVER, place.job)
    assert place.job != job.place.job
    assert left == ([job.place.job] if reached else [])


def at_work(job: Job, *, drains: bool = False) -> Coroutine[Any, Any, object]:
    """An attempt on a host, in a process that *drains*."""
    job.host.runs = cast("Any", SimpleNamespace(draining=lambda: drains))
    return job.kept.attempt(job.place)
