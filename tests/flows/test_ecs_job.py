"""A job on our own servers: where it is made, who ends it, what is told of it; what it does there is another's."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import DEFAULT, AsyncMock, Mock

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import OperationalError

from flows.host import TeacherHost
from flows.outbox_publisher import patience
from flows.prefect_api import BackgroundRuns
from flows.teacher import maintenance, transcoding
from flows.teacher.ecs import job
from flows.teacher.ecs.job import SETTLED, TAKEN, UNWANTED, HostQueue, TranscodeJob
from lectern.db import bookings, events, transcodings
from lectern.db.transcodings import BegunJob
from lectern.decide.transcoding import FAILURES, total_limit_s
from lectern.ecs import detached, ssh, transcode
from lectern.ecs.transcode import Job, JobOutcome, JobReport
from lectern.errors import (
    BAD_RECORDING,
    CANCELLED,
    DOWNLOAD_FAILED,
    HOST_ASIDE,
    NO_ECS_ROOM,
    TRANSCODE_FAILED,
    UPLOAD_FAILED,
    FallBack,
    LecternError,
    Misuse,
    Refuse,
    TryAgain,
)
from lectern.model.facts import EcsHost
from lectern.model.tables.teacher import RenditionRow, journal, orders, videos
from lectern.states import Backend, BookingState, RenditionState, Resolution
from tests import strategies
from tests.rows import begin, commit, ended_in, look, said, unsent
from tests.waiting import async_wait_until, cancelled

ONE, TWO = "ssh://ecs@one.example:22", "ssh://ecs@two.example:22"
P240, P720 = Resolution.P240, Resolution.P720
RECORD, OURS, URL = 6666, "our run", "http://origin.example/6666.flv"


class Far:
    """Two hosts that can be logged in to; *does* is what becomes of a job there, if it is not one that *fails*."""

    def __init__(self) -> None:
        self.does: Callable[[JobReport], Awaitable[object]] = AsyncMock()
        self.fails: list[Exception] = []  # how the next jobs end
        self.misses: list[Resolution] = []  # what the next job cannot make, though it makes the others
        self.lost = 0  # number of the next logins that fail
        self.at: list[str] = []  # where jobs were done
        self.left: list[str] = []
        self.pauses: list[int] = []
        self.clock = self.login_s = 0.0  # monotonic, and how long a login takes
        self.draining = self.cancelled = self.hangs = False
        self.there = asyncio.Event()

    async def for_ever(self, _: JobReport) -> None:
        self.there.set()
        await asyncio.Event().wait()

    @asynccontextmanager
    async def connect(self, where: ssh.SshHost, _key: Path, _known: Path, *, timeout_s: float) -> AsyncIterator[str]:
        if self.lost:
            self.lost -= 1
            raise ssh.Lost("{host}: no route", host=where)
        self.clock += self.login_s
        if self.hangs and self.at and not self.there.is_set():
            await self.for_ever(JobReport())
        yield str(where)

    async def transcode(self, where: str, remote: Job, report: JobReport) -> JobOutcome:
        self.at.append(where)
        if self.fails:
            raise self.fails.pop()
        await self.does(report)
        made = {one: f"http://oss.example/up/{one}.flv" for one in remote.wanted if one not in self.misses}
        error, self.misses = Refuse("no upload", UPLOAD_FAILED) if self.misses else None, []
        return JobOutcome(made, error)

    async def leave(self, _where: str, _root: str, name: str) -> None:
        self.left.append(name)

    def backoff(self, number: int, _first_s: float) -> float:
        self.pauses.append(number)
        return 0.0


@pytest.fixture
def far(teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch) -> Far:
    """Our two servers, and a teacher that may give each of them one job."""
    found = Far()
    monkeypatch.setattr(ssh, "connect", found.connect)
    monkeypatch.setattr(transcode, "transcode", found.transcode)
    monkeypatch.setattr(detached, "leave", found.leave)
    monkeypatch.setattr(job, "backoff_s", found.backoff)
    monkeypatch.setattr(job, "publish_outbox", unsent)
    monkeypatch.setattr(job, "QUEUE", HostQueue())
    monkeypatch.setattr(job, "BEAT_S", 0.02)
    its = {"ecs_hosts": f"{ONE},{TWO}", "ecs_ssh_key": Path("key"), "ecs_known_hosts": Path("known"), "max_ecs_jobs": 1}
    teacher.settings = teacher.settings.model_copy(update=its)
    runs = {"draining": lambda: found.draining, "was_cancelled": lambda _: found.cancelled}
    teacher.runs = cast("Any", SimpleNamespace(**runs))
    return found


def waits(host: TeacherHost, record: int = RECORD, in_s: float = 600.0) -> None:
    """A class waits for the record at 720P."""
    start = time.time() + in_s
    one = strategies.booking(f"c-{record}", record_id=record, start_time=start, end_time=start + 600)
    commit(host.engine, bookings.add, [(one, BookingState.WAITING)], time.time())


def take(host: TeacherHost, *sizes: Resolution, record: int = RECORD, owner: str = OURS) -> TranscodeJob:
    """Renditions that are to be made on our own servers, and are *owner*'s."""
    keys = [(record, size) for size in sizes or (P720,)]
    if not look(host.engine, transcodings.among, keys):
        commit(host.engine, begin, *keys, by=Backend.ECS)
    return TranscodeJob(host, commit(host.engine, transcodings.take, keys, owner, job.LEASE_S, time.time()), owner)


def is_begun(host: TeacherHost, its: TranscodeJob, where: str, name: str = "", at: float = 1.0) -> None:
    """A job goes on at a host since then, by its own name if it has no other."""
    name = name or job.remote_job(host.settings, its.due).name
    commit(host.engine, transcodings.attach, its.due, its.owner, BegunJob(where, name, at))


def row(host: TeacherHost, size: Resolution = P720) -> RenditionRow:
    (found,) = look(host.engine, transcodings.among, [(RECORD, size)])
    return found


def told(host: TeacherHost) -> list[tuple[str, int | None]]:
    """The results that were published: whether it was made, and the code."""
    return [(one["result"], one.get("code")) for one in said(host, "transcoding")]


async def made(its: TranscodeJob) -> list[str]:
    """Why some could not be made; a test does not hang on what is never made."""
    async with asyncio.timeout(30):
        await its.run()
    return its.failures


@pytest.mark.parametrize("wanted", [True, False], ids=["for a class", "for a request"])
async def test_what_is_made_is_told_once_and_nothing_is_left(
    teacher: TeacherHost, far: Far, monkeypatch: pytest.MonkeyPatch, *, wanted: bool
) -> None:
    monkeypatch.setattr(job, "BEAT_S", 600.0)

    async def work(report: JobReport) -> None:
        report.loudness = "-14 LUFS" if wanted else ""
        await asyncio.sleep(0.2)  # so long nobody looks at it again

    far.does = work
    if wanted:
        waits(teacher)
    its = take(teacher, P240, P720)
    beats = Mock(wraps=its.beat)
    monkeypatch.setattr(its, "beat", beats)
    commit(teacher.engine, transcodings.remember_host, EcsHost(ONE, failures=2), "no room", time.time())
    assert await made(its) == []
    assert look(teacher.engine, transcodings.host_facts, [ONE])[0].failures == 0
    assert told(teacher) == [("sucess", None)] * 2
    assert (far.at, len(far.left), beats.call_count, far.pauses) == ([ONE], 1, 1, [])
    assert (row(teacher).step, row(teacher).ecs_job) == (transcodings.PUBLISHED, None)
    heard = select(journal.events.c.detail).where(journal.events.c.what == "loudness")
    assert look(teacher.engine, Connection.execute, heard).scalars().all() == ["-14 LUFS"] * 2 * wanted


RETRIED = [ONE] * (job.RECONNECTS + 1)
WAYS: dict[str, tuple[int, int, int, list[str]]] = {
    "it breaks": (0, job.RECONNECTS, 0, RETRIED),
    "it breaks once more": (0, job.RECONNECTS + 1, 0, [*RETRIED, TWO]),
    "it cannot be logged in to": (1, 0, 0, [TWO]),
    "it breaks when all is made": (0, 0, 1, [ONE]),
}
"""How many logins fail, how often the connection breaks, how many logins fail after that; and where it is made."""


@pytest.mark.parametrize("login_s", [0.0, job.LASTING_S + 1])
@pytest.mark.parametrize("what", WAYS)
async def test_a_job_is_looked_for_where_it_goes_on_until_its_host_is_given_up(
    teacher: TeacherHost, far: Far, monkeypatch: pytest.MonkeyPatch, what: str, login_s: float
) -> None:
    """And nothing of it is left: nobody but this run would look there again soon.

    A host on which a login takes long is given up, too: it was tried for an hour, while another one was free.
    """
    monkeypatch.setattr(job, "time", SimpleNamespace(time=time.time, monotonic=lambda: far.clock))
    far.login_s = login_s
    far.lost, breaks, later, at = WAYS[what]
    far.fails = [ssh.Lost("the connection is lost")] * breaks

    async def work(_: JobReport) -> None:
        far.lost = later

    far.does = work
    assert await made(take(teacher)) == []
    assert (far.at, told(teacher), len(far.left)) == (at, [("sucess", None)], len({*at}))
    tries = min(breaks, job.RECONNECTS)
    assert far.pauses[:tries] == [*range(tries)]


FAILED: dict[str, tuple[LecternError, int, int, list[int]]] = {
    "its disk is full": (FallBack("no room", NO_ECS_ROOM), FAILURES, NO_ECS_ROOM.number, [HOST_ASIDE.number]),
    "the recording is bad": (Refuse("no sound", BAD_RECORDING), 0, BAD_RECORDING.number, []),
}
"""What goes wrong at a host each time: the failures that are counted as its own, the code that is told, the alarms."""


@pytest.mark.parametrize("why", FAILED)
async def test_a_host_is_put_aside_for_its_own_failures_alone(teacher: TeacherHost, far: Far, why: str) -> None:
    """A new try is made where another may succeed; the result, and the alarm, are told once."""
    error, failures, code, alarms = FAILED[why]
    far.fails = [error] * FAILURES
    teacher.settings = teacher.settings.model_copy(update={"ecs_hosts": ONE})
    assert await made(take(teacher)) == [error.message]
    assert far.at == [ONE] * max(failures, 1)
    (known,) = look(teacher.engine, transcodings.host_facts, [ONE])
    assert (known.failures, known.aside_until > time.time()) == (failures, bool(failures))
    assert told(teacher) == [("failed", code)]
    assert [one["code"] for one in said(teacher, "alarm")] == alarms


async def test_why_a_host_failed_keeps_its_id_in_the_story_and_in_the_alarm(teacher: TeacherHost, far: Far) -> None:
    """Else people who read Chinese would get it in English."""
    error = FallBack("{host}: cannot be reached: {reason}", NO_ECS_ROOM, host=ONE, reason="no route to host")
    far.fails = [error] * FAILURES
    teacher.settings = teacher.settings.model_copy(update={"ecs_hosts": ONE})
    await made(take(teacher))
    failed = select(*events.COLUMNS).where(events.table.c.what == "ECS host failed")
    told = [row.detail for row in look(teacher.engine, Connection.execute, failed)]
    assert [getattr(one, "id", None) for one in told] == ["{host}: cannot be reached: {reason}"] * FAILURES
    (alarm,) = said(teacher, "alarm")
    assert alarm["args"]["why"]["id"] == "{host}: cannot be reached: {reason}"
    assert alarm["message"].count(ONE) == 1


async def test_what_befalls_one_rendition_spares_the_other(teacher: TeacherHost, far: Far) -> None:
    far.misses = [P240]
    its = take(teacher, P240, P720)
    assert await made(its) == ["no upload"]
    assert told(teacher) == [("sucess", None), ("failed", UPLOAD_FAILED.number)]
    assert (its.made, far.at) == ({f"{RECORD}_720P"}, [ONE])


def other_takes(connection: Connection) -> None:
    connection.execute(update(videos).values(owner="their run", lease_until=time.time() + 60))


def is_settled(connection: Connection) -> None:
    ended_in(connection, (RECORD, P720), RenditionState.SUCCESS, time.time())


def class_is_cancelled(connection: Connection) -> None:
    connection.execute(update(orders).values(state=BookingState.CANCELLED))


ENDED: dict[str, tuple[Callable[[Connection], None], bool, str]] = {
    "another run has it": (other_takes, False, TAKEN),
    "it is settled": (is_settled, True, SETTLED),
    "no class needs it": (class_is_cancelled, True, UNWANTED),
}
"""What befalls a rendition while it is made, whether its job is ended there (another run goes on with it), and why."""


@pytest.mark.parametrize("what", ENDED)
async def test_a_job_that_is_no_longer_ours_ends_and_tells_nothing(
    teacher: TeacherHost, far: Far, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    befalls, is_left, why = ENDED[what]
    waits(teacher)

    async def work(report: JobReport) -> None:
        commit(teacher.engine, befalls)
        await far.for_ever(report)

    far.does = work
    its = take(teacher)
    monkeypatch.setattr(transcoding, "TranscodeJob", lambda *_: its)
    async with asyncio.timeout(30):
        state = await transcoding.work_on_ecs(teacher, RECORD, [P720], OURS, again=False)
    assert (state.is_completed(), state.message) == (True, f"6666_720P: {why}"), "it has made nothing"
    assert (len(far.left), its.left, told(teacher)) == (int(is_left), {}, [])
    if befalls is class_is_cancelled:
        now = row(teacher)
        assert (now.state, now.reason, now.attempts_today) == (RenditionState.FAILED, UNWANTED, 0)


async def test_a_result_of_what_was_settled_at_the_last_moment_does_not_count(
    teacher: TeacherHost, far: Far, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(job, "BEAT_S", 600.0)
    caplog.set_level("INFO", "lectern")

    async def work(_: JobReport) -> None:
        commit(teacher.engine, ended_in, (RECORD, P240), RenditionState.SUCCESS, time.time())

    far.does = work
    assert await made(take(teacher, P240, P720)) == []
    assert told(teacher) == [("sucess", None)]
    assert [one.args for one in caplog.records if "does not count" in one.msg] == [("6666_240P",)]


@pytest.mark.parametrize("sought", [False, True], ids=["at work", "its host is sought again"])
@pytest.mark.parametrize(
    ("person", "draining", "is_left"),
    [(True, False, True), (False, True, False), (False, False, True)],
    ids=["a person cancels its run", "the process ends", "the process dies of an error"],
)
async def test_a_job_that_is_cut_off_is_given_up_for_a_person_alone(
    teacher: TeacherHost, far: Far, *, person: bool, draining: bool, is_left: bool, sought: bool
) -> None:
    """Else its classes would be refused with 208: a process that dies of an error cancels all its tasks, too.

    A host that does not answer is waited for mostly in a login; only a process that ends leaves its job there.
    """
    far.does, far.cancelled, far.draining = far.for_ever, person, draining
    far.hangs, far.fails = sought, [ssh.Lost("the connection is lost")] * sought
    running = asyncio.create_task(take(teacher).run())
    await asyncio.wait_for(far.there.wait(), 30)
    await cancelled(running)
    assert len(far.left) == int(is_left)
    assert told(teacher) == ([("failed", CANCELLED.number)] if person else [])


async def test_a_cancel_is_told_before_a_slow_host_has_ended_the_job(
    teacher: TeacherHost, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That takes longer than the lease of its run: another one would begin what a person has cancelled."""
    far.does, far.cancelled = far.for_ever, True

    async def slow(_where: str, _root: str, name: str) -> None:
        far.left.append(f"{name}: {told(teacher)}")

    monkeypatch.setattr(detached, "leave", slow)
    its = take(teacher)
    name = job.remote_job(teacher.settings, its.due).name
    running = asyncio.create_task(its.run())
    await asyncio.wait_for(far.there.wait(), 30)
    await cancelled(running)
    assert far.left == [f"{name}: {told(teacher)}"]
    assert told(teacher) == [("failed", CANCELLED.number)], "once"


async def test_what_a_person_cancels_while_its_process_is_down_is_refused_and_not_begun_again(
    teacher: TeacherHost, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweeper had it made all the same. What its host still has of it is ended by the run that begins then."""
    begun: list[str] = []
    cast("Any", teacher.runs).cancelled = AsyncMock(return_value={OURS: ""})
    monkeypatch.setattr(BackgroundRuns, "begin", lambda _self, _runs, run: begun.append(run.name))
    monkeypatch.setattr(transcoding, "publish_outbox", unsent)
    its, other = take(teacher), take(teacher, record=7, owner="their run")
    is_begun(teacher, its, ONE)
    commit(teacher.engine, Connection.execute, update(videos).values(lease_until=1.0))
    await maintenance._sweep(teacher, dry_run=False)
    assert told(teacher) == [("failed", CANCELLED.number)]
    assert look(teacher.engine, transcodings.ours, [*its.due, *other.due], "their run") == other.due
    assert sorted(begun) == ["transcode 6666 720P", "transcode 7 720P"]
    async with asyncio.timeout(30):
        state = await transcoding.work_on_ecs(teacher, RECORD, [P720], "the next run", again=False)
    assert state.message == "nothing to do: settled already"
    assert (len(far.left), far.at) == (1, [])


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_job_is_kept_and_noted_as_long_as_it_is_ours(teacher: TeacherHost, far: Far, *, wanted: bool) -> None:
    waits(teacher)
    its, place = take(teacher, P240, P720), BegunJob(ONE, "a job", time.time())
    its.wanted, its.report.duration_s = wanted, 60.0

    async def beat(*, step: str) -> str | None:
        its.report.step = step
        return await its.beat(place)

    assert await beat(step="fetch") is None
    assert (row(teacher).step, row(teacher).deadline) == ("fetch", place.at + total_limit_s(60.0) + job.SLACK_S)
    before = row(teacher).lease_until or 0.0
    assert await beat(step="encode") is None
    assert (row(teacher).lease_until or 0.0) > before > time.time()
    commit(teacher.engine, ended_in, (RECORD, P240), RenditionState.SUCCESS, time.time())
    assert await beat(step="encode") is None
    assert [one.resolution for one in its.due] == [P720], "the other is made still"
    commit(teacher.engine, other_takes)
    assert await beat(step="encode") == TAKEN
    its._published = True
    assert await beat(step="encode") is None, "its own result is why it is no longer ours"


@pytest.mark.parametrize("lost", [0, 1])
async def test_what_a_host_has_of_a_job_is_left_or_noted_for_a_later_one(
    teacher: TeacherHost, far: Far, lost: int
) -> None:
    is_begun(teacher, take(teacher), ONE, "a job")
    far.lost = lost
    assert await job.leave(teacher, teacher.settings, ONE, "a job") is not bool(lost)
    assert (row(teacher).ecs_job is None) is not bool(lost)


RESUMED: dict[str, tuple[str, str, int, list[str]]] = {
    "it goes on": (ONE, "", 0, [""]),
    "it is another job by now": (ONE, "old", 0, ["old", ""]),
    "it is another job, and cannot be logged in to": (ONE, "old", 1, ["", "old"]),
    "its host is named no more": ("ssh://ecs@gone.example:22", "", 0, [""]),
}
"""Where an earlier process began what job, how many logins fail, and what is ended there; without a name, its own."""


@pytest.mark.parametrize("what", RESUMED)
async def test_what_an_earlier_process_began_is_found_again(
    teacher: TeacherHost, far: Far, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It does not wait for its own place, nor for one that an older job of it holds: there is one for it alone.

    That one is free before the older job is ended. A host may take longer for that than the lease of the run lasts, and
    the next run would begin with the same, and so on.
    """
    where, name, far.lost, left = RESUMED[what]
    places: list[float | None] = []

    async def leave(_where: str, _root: str, name: str) -> None:
        far.left.append(name)
        places.append(row(teacher).begun_at)

    monkeypatch.setattr(detached, "leave", leave)
    teacher.settings = teacher.settings.model_copy(update={"ecs_hosts": ONE})
    is_begun(teacher, take(teacher), where, name, began := time.time() - 100)
    its = take(teacher)
    own = job.remote_job(teacher.settings, its.due).name
    assert await made(its) == []
    assert (far.at, far.left, told(teacher)) == ([ONE], [one or own for one in left], [("sucess", None)])
    assert its.place is not None
    assert (its.place.at == began) is (what == "it goes on")
    assert (places[0] is None) is (left[0] == "old")


async def test_what_nobody_could_work_on_while_the_teacher_was_down_is_made_and_not_timed_out(
    teacher: TeacherHost, far: Far
) -> None:
    """After an hour without power all that waited for our servers was refused with 207, also for classes of next week.

    Of one at a host, the time that was left is left still; one whose run lives is late at its deadline.
    """
    down_s, worked_s = 7200.0, 100.0
    died_at = time.time() - down_s
    late = {"deadline": died_at + 3000, "lease_until": died_at}
    is_begun(teacher, take(teacher, P240), ONE, at=died_at - worked_s)
    take(teacher, P720)
    commit(teacher.engine, Connection.execute, update(videos).values(late))
    assert await transcoding.time_out(teacher) == []
    going, waiting = (take(teacher, size, owner="the next run") for size in (P240, P720))
    for its in (going, waiting):
        assert await made(its) == []
    assert told(teacher) == [("sucess", None)] * 2
    assert going.place is not None
    assert time.time() - going.place.at == pytest.approx(worked_s, abs=30)
    hangs = take(teacher, record=7).due
    commit(teacher.engine, Connection.execute, update(videos).where(videos.c.record_id == 7).values(deadline=1.0))
    assert [one.key for one in look(teacher.engine, transcodings.overdue, time.time())] == [one.key for one in hangs]


@pytest.mark.parametrize(
    ("in_s", "result"),
    [(86_400.0, ("sucess", None)), (600.0, ("failed", TRANSCODE_FAILED.number))],
    ids=["later", "soon"],
)
async def test_a_job_of_a_later_class_waits_while_the_only_host_is_started_again(
    teacher: TeacherHost, far: Far, monkeypatch: pytest.MonkeyPatch, in_s: float, result: tuple[str, int | None]
) -> None:
    """Job after job was tried three times in seconds: all that waited was refused, for a reboot that took a minute.

    A class that begins soon is refused at once, as ever, so that the platform can move it. The wait is none of the
    tries that a job has: what passes, such as a busy origin, is tried again after it, too.
    """
    monkeypatch.setattr(job, "LOOK_S", 0.02)
    monkeypatch.setattr(job, "assign", looks := Mock(wraps=job.assign))
    teacher.settings = teacher.settings.model_copy(update={"ecs_hosts": ONE})
    waits(teacher, in_s=in_s)
    far.lost = 1000
    making = asyncio.create_task(made(take(teacher)))
    await async_wait_until(lambda: making.done() or looks.call_count > FAILURES + 3, description="it waits, if it may")
    assert far.lost == 1000 - FAILURES, "nobody tries a host that is put aside"
    assert patience(teacher).lasts_s[HOST_ASIDE.number] > teacher.settings.ecs_cooldown_s, "nor is it said to be well"
    far.lost, far.fails = 0, [TryAgain("503", DOWNLOAD_FAILED)]
    commit(teacher.engine, transcodings.remember_host, EcsHost(ONE, 0, FAILURES, time.time()), "no route", time.time())
    await making
    assert told(teacher) == [result]


async def test_a_host_that_was_put_aside_before_the_clock_was_set_back_is_not_waited_for(
    teacher: TeacherHost, far: Far
) -> None:
    """All classes waited for it until two hours before they began."""
    teacher.settings = teacher.settings.model_copy(update={"ecs_hosts": ONE})
    waits(teacher, in_s=7 * 86_400)
    aside = EcsHost(ONE, 0, FAILURES, time.time() + 86_400)
    commit(teacher.engine, transcodings.remember_host, aside, "no route", time.time())
    assert await made(take(teacher)) == []
    assert told(teacher) == [("sucess", None)]


async def test_a_job_that_brings_its_host_down_is_given_up_however_late_its_class_is(
    teacher: TeacherHost, far: Far
) -> None:
    """It was tried for days, and ended what the host made for others, each time."""

    async def work(report: JobReport) -> None:
        report.step = "encode"
        raise ssh.Lost("no answer for 45 s, hung up")

    far.does = work
    teacher.settings = teacher.settings.model_copy(update={"ecs_hosts": ONE})
    waits(teacher, in_s=86_400)
    assert await made(take(teacher)) == ["no answer for 45 s, hung up"]
    assert (far.at, told(teacher)) == ([ONE] * FAILURES * len(RETRIED), [("failed", TRANSCODE_FAILED.number)])


async def test_what_goes_on_at_a_host_that_fails_is_tried_at_another(teacher: TeacherHost, far: Far) -> None:
    far.fails = [FallBack("no room", NO_ECS_ROOM)]
    is_begun(teacher, take(teacher), TWO)
    assert await made(take(teacher)) == []
    assert far.at == [TWO, ONE]


async def test_a_host_that_says_what_nobody_foresaw_is_left_for_another(teacher: TeacherHost, far: Far) -> None:
    """Its run failed, and the next one looked for the job there again, until its classes were refused."""
    far.fails = [ValueError("invalid literal for int() with base 10: ''")]
    assert await made(take(teacher)) == []
    assert (far.at, len(far.left), told(teacher)) == ([ONE, TWO], 2, [("sucess", None)])
    assert look(teacher.engine, transcodings.host_facts, [ONE])[0].failures == 1


async def test_a_host_that_is_named_no_more_is_left_in_order_too(teacher: TeacherHost, far: Far) -> None:
    """A person takes one that does not answer out of the settings while its job is about to be tried at another."""

    async def breaks(_: JobReport) -> None:
        far.lost, far.does = 1, AsyncMock()
        teacher.settings = teacher.settings.model_copy(update={"ecs_hosts": TWO})
        raise FallBack("no room", NO_ECS_ROOM)

    far.does = breaks
    assert await made(take(teacher)) == []
    assert (far.at, len(far.left), told(teacher)) == ([ONE, TWO], 2, [("sucess", None)])


async def test_what_runs_that_were_killed_left_at_a_host_is_ended(teacher: TeacherHost, far: Far) -> None:
    """One that is set up still; the rendition itself is settled."""
    for where in (ONE, "ssh://ecs@gone.example:22"):
        its = take(teacher, record=len(where))
        is_begun(teacher, its, where, "left")
        commit(teacher.engine, ended_in, its.keys[0], RenditionState.FAILED, time.time())
        await transcoding.work_on_ecs(teacher, len(where), [P720], "later", again=False)
    assert far.left == ["left"]


async def test_a_run_makes_what_no_other_makes_and_says_what_became_of_it(teacher: TeacherHost, far: Far) -> None:
    """What goes on at a host already is a job of its own."""
    is_begun(teacher, take(teacher, P720), ONE)
    take(teacher, P240)
    take(teacher, Resolution.P480, owner="their run")

    async def run(*sizes: Resolution) -> tuple[bool, str | None]:
        state = await transcoding.work_on_ecs(teacher, RECORD, sizes, OURS, again=False)
        return state.is_completed(), state.message

    assert await run(P240, Resolution.P480, P720) == (
        True,
        "made 6666_240P, 6666_720P; the run their run makes the rest",
    )
    assert len(far.at) == 2
    assert await run(Resolution.P480) == (True, "the run their run makes them")
    await transcoding.work_on_ecs(teacher, RECORD, [Resolution.P480], OURS, again=True)
    *_, noted = look(teacher.engine, events.of_thing, class_id="", stems=["6666_480P"])
    assert (noted.what, noted.detail) == ("retried", "by Prefect")
    assert await run(P240) == (True, "nothing to do: settled already")
    far.lost = 1000
    take(teacher, Resolution.P1080)
    assert (await run(Resolution.P1080))[0] is False


async def places(host: TeacherHost, *waiting: TranscodeJob) -> dict[int, str]:
    """Which records get a place, and where."""
    given = await host.write_tx(job.assign, host, waiting)
    return {its.due[0].record_id: place.host for its, place in given.items() if place is not None}


async def test_each_free_place_is_given_once_and_first_to_what_is_needed_first(teacher: TeacherHost, far: Far) -> None:
    for record, in_s in ((1, 9000), (2, 600), (3, 1200)):
        waits(teacher, record, in_s)
    some = [take(teacher, record=record, owner=f"run {record}") for record in (1, 2, 3)]
    assert await places(teacher, *some) == {2: ONE, 3: TWO}
    begun = look(teacher.engine, Connection.execute, select(videos.c.record_id).where(videos.c.begun_at.is_not(None)))
    assert {*begun.scalars()} == {2, 3}
    many = take(teacher, P240, P720, record=4)
    teacher.settings = teacher.settings.model_copy(update={"max_ecs_jobs": 2})
    assert await places(teacher, many) == {4: ONE}
    noted = look(teacher.engine, Connection.execute, select(journal.events.c.detail)).scalars()
    alone = [detail in {f"on {ONE}", f"on {TWO}"} for detail in noted if "on ssh" in detail]
    assert alone == [True, True, False, False], "and whoever looks sees that two are made together"


@pytest.mark.parametrize("earlier", ["a", "b"])
async def test_a_free_place_is_left_to_the_teacher_whose_class_begins_first(
    teacher: TeacherHost, far: Far, monkeypatch: pytest.MonkeyPatch, earlier: str
) -> None:
    """Not for long: it may want another host, or be dead."""
    yield_s, began = 40.0, time.time()
    monkeypatch.setattr(job, "YIELD_S", yield_s)
    shared = {"teacher_database_url": SecretStr("postgresql://of.both")}
    teacher.settings = teacher.settings.model_copy(update=shared)
    for record, name in enumerate("ab", 1):
        waits(teacher, record, 600 if name == earlier else 6000)
    take(teacher, record=2, owner="b")
    ours = take(teacher, record=1, owner="a")
    assert await places(teacher, ours) == ({1: ONE} if earlier == "a" else {})
    if earlier == "b":
        now = ours.yields_until or 0.0
        assert (ours.yields(now - 0.1), ours.yields(now)) == (True, False)
        assert now >= began + yield_s
        ours.yields_until = time.time()
        assert await places(teacher, ours) == {1: ONE}
        commit(teacher.engine, transcodings.given_up, ours.due, "a")
        ours.yields_until, looked_s_ago = None, yield_s + 1
        stale = update(videos).where(videos.c.owner == "b").values(lease_until=time.time() + job.LEASE_S - looked_s_ago)
        commit(teacher.engine, Connection.execute, stale)
        assert await places(teacher, ours) == {1: ONE}, "the other one is dead"


async def test_a_database_that_is_away_ends_no_job(
    teacher: TeacherHost, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else can take it over meanwhile."""
    its, write, done = take(teacher), teacher.write_tx, asyncio.Event()
    fails = [OperationalError("UPDATE video_list", {}, ConnectionError("the server is restarted"))] * 3

    async def away_at_first(work: Callable[..., Any], *args: Any) -> Any:
        if work == its._renew and fails:
            raise fails.pop()
        if work == its._renew:
            done.set()
        return await write(work, *args)

    far.does = lambda _: done.wait()
    monkeypatch.setattr(teacher, "write_tx", away_at_first)
    assert await made(its) == []
    assert (fails, told(teacher), len(far.left)) == ([], [("sucess", None)], 1)


async def test_no_job_waits_for_a_host_when_the_last_one_is_taken_out_of_the_settings(
    teacher: TeacherHost, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its deadline is put off as long as it waits: its classes would be answered by nobody."""
    monkeypatch.setattr(job, "LOOK_S", 0.02)
    for record, where in enumerate((ONE, TWO), 1):
        is_begun(teacher, take(teacher, record=record, owner="their run"), where, "their job")
    waiting = asyncio.create_task(made(take(teacher)))
    await async_wait_until(lambda: job.QUEUE._waiting, description="it waits for a place")
    teacher.settings = teacher.settings.model_copy(update={"ecs_hosts": ""})
    assert "no ECS host is set up" in (await waiting)[0]
    assert told(teacher) == [("failed", TRANSCODE_FAILED.number)]


async def test_whoever_waits_in_the_queue_does_so_until_the_database_answers(
    teacher: TeacherHost, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "LOOK_S", 0.02)
    is_away = OperationalError("UPDATE", {}, Exception("disk I/O error"))
    monkeypatch.setattr(job, "assign", Mock(wraps=job.assign, side_effect=chain([is_away] * 3, repeat(DEFAULT))))
    its = take(teacher)
    assert await made(its) == []
    assert await made(its) == [], "who waits for nothing any more is told so"
    assert (far.at, told(teacher)) == ([ONE], [("sucess", None)])


def test_hosts_without_what_they_need_are_misuse(teacher: TeacherHost, far: Far) -> None:
    """A key of the OSS counts as a whole; without hosts nothing is needed."""
    transcode.check_ecs(teacher.settings)
    its: Sequence[dict[str, Any]] = (
        {"ecs_ssh_key": None},
        {"upload_url": None},
        {"public_url": None},
        {"upload_url": "oss://bucket/x", "oss_region": "cn-hangzhou"},
    )
    for half in its:
        with pytest.raises(Misuse):
            transcode.check_ecs(teacher.settings.model_copy(update=half))
        transcode.check_ecs(teacher.settings.model_copy(update={**half, "ecs_hosts": ""}))
    remote = job.remote_job(teacher.settings.model_copy(update={"oss_region": "cn-hangzhou"}), take(teacher).due)
    assert (remote.source_url, remote.settings.upload_url) == (URL, "http://oss.example/up")
