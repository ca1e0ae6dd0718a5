"""An alarm that was sent is due until people were told of it, whoever is killed and whatever is away meanwhile."""

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import OperationalError

from flows import failures, outbox_publisher
from flows.host import TELLING, Host, TeacherHost, is_ours
from flows.outbox_publisher import patience, publish_outbox, tell_people
from flows.resident import instance_lock
from flows.resident import notifications as telling
from flows.resident.instance_lock import QueueLock
from flows.resident.notifications import People
from lectern import errors
from lectern.db import incidents, leases, outbox
from lectern.db.engine import open_database, transaction
from lectern.db.outbox import Refusal, Rest, Unsent
from lectern.errors import TryAgain
from lectern.model.tables.teacher import journal
from lectern.redis.client import Bus, Sent
from lectern.wire import outgoing
from lectern.wire.outgoing import Alarm, Outgoing, OutgoingKind
from tests import laid, rows
from tests.faults import hosts
from tests.flows.test_people import Service, service
from tests.rows import commit, look
from tests.stage.postgres import Databases
from tests.waiting import async_wait_until, cancelled

__all__ = ["service"]
FULL = Mock(side_effect=OperationalError("", {}, Exception("database or disk is full")))


class Redis:
    """A Redis that takes everything while it is up, and counts how often its lock is asked for."""

    def __init__(self, *, is_copy: bool = False) -> None:
        self.is_up, self.refuses, self.is_copy, self.asked = True, False, is_copy, 0

    async def hold(self, *_: object) -> None:
        self.asked += 1
        if self.is_copy:
            raise TryAgain("Redis: You can't write against a read only replica.")

    async def now(self) -> float:
        if not self.is_up:
            raise OSError("no route to host")
        return time.time()

    async def send(self, messages: Sequence[Unsent], _until: float = 0.0) -> Sent:
        if self.refuses:
            refused = [Refusal(one, Rest.BOTH, "NOPERM") for one in messages]
            return Sent(number=len(messages), refused=refused)
        return Sent(number=len(messages)) if self.is_up else Sent(broke=OSError("no route to host"))

    async def publish_alarm(self, *_: str) -> None:
        raise TryAgain("Redis: no route to host")


def teacher(url: str, alarm_urls: str, name: str = "teacher") -> TeacherHost:
    """A process of a teacher: what it has in memory ends with it, its database stays."""
    found = hosts.teacher(open_database(url))
    given = {"teacher_database_url": SecretStr(url), "alarm_urls": SecretStr(alarm_urls), "teacher_name": name}
    found.settings = found.settings.model_copy(update=given)
    found.bus = cast("Bus", Redis())
    return found


@pytest.fixture
async def begin(tmp_path: Path, service: Service) -> AsyncIterator[Callable[..., TeacherHost]]:
    """Begins a process on the same database."""
    begun: list[TeacherHost] = []
    url = f"sqlite:///{laid.database('teacher', tmp_path / 'teacher.db')}"

    def one_more(alarm_urls: str = service.hook) -> TeacherHost:
        begun.append(teacher(url, alarm_urls))
        return begun[-1]

    yield one_more
    for one in begun:
        one.engine.dispose()


def put(host: Host[Any], code: int = 208, class_id: str = "c-1") -> None:
    made = Alarm(code=code, message=f"{class_id}: no", at=time.time(), runbook="r", host="h", class_id=class_id)
    commit(host.engine, outbox.put, [Outgoing("alarm", OutgoingKind.CHANNEL, made)], time.time())


def noted(host: Host[Any]) -> list[str | None]:
    its = journal.outbox.c
    return list(look(host.engine, Connection.execute, select(its.people).order_by(its.id)).scalars())


async def pass_on(host: Host[Any]) -> None:
    its = People(host)
    while await its._pass_on_due():
        pass


def full(*_: object) -> None:
    raise OperationalError("", {}, Exception("database or disk is full"))


def classes(service: Service) -> list[str]:
    return [line.removeprefix("classes: ") for one in service.got for line in one["message"].split("\n")[2:3]]


async def test_what_was_sent_and_not_passed_on_before_the_process_was_killed_is_passed_on_by_the_next(
    begin: Callable[..., TeacherHost], service: Service
) -> None:
    """The oldest first, once, and what was folded into an incident not at all."""
    killed = begin()
    put(killed, 208, "c-1")
    put(killed, 208, "c-2")
    put(killed, 318, "c-3")
    assert await publish_outbox(killed)
    assert noted(killed) == ["due", None, "due"]
    after = begin()
    await pass_on(after)
    assert classes(service) == ["c-1", "c-3"]
    assert noted(after) == ["told", None, "told"]
    await pass_on(begin())
    assert len(service.got) == 2


async def test_people_are_told_once_while_redis_is_away_also_if_the_process_is_killed_meanwhile(
    begin: Callable[..., TeacherHost], service: Service
) -> None:
    """Redis takes the alarm later, and they are not told again."""
    killed = begin()
    put(killed)
    cast("Any", killed.bus).is_up = False
    assert [await publish_outbox(killed), await publish_outbox(killed)] == [False, False]
    assert noted(killed) == ["due"]
    after = begin()
    cast("Any", after.bus).is_up = False
    assert not await publish_outbox(after)
    await pass_on(after)
    assert not await publish_outbox(after)
    cast("Any", after.bus).is_up = True
    assert await publish_outbox(after)
    await pass_on(after)
    assert (classes(service), noted(after)) == (["c-1"], ["told"])


def follow_up(host: Host[Any], later_s: float) -> list[str]:
    """Follow up the incidents as the host does; returns the stages of that of the classes."""
    now = time.time() + later_s
    with transaction(host.engine) as connection:
        due = incidents.follow_up(connection, host.settings.name, patience(host), now)
        outbox.put(connection, [Outgoing("alarm", OutgoingKind.CHANNEL, one) for one in due], now)
    return [str(one.stage) for one in due if one.code == 208]  # type: ignore[attr-defined]  # of an incident


@pytest.mark.parametrize("trouble", [{"is_up": False}, {"refuses": True}], ids=str)
async def test_people_hear_of_each_further_class_while_redis_takes_no_alarm(
    begin: Callable[..., TeacherHost], service: Service, trouble: dict[str, bool]
) -> None:
    """Redis may be away all night; its first alarm, which counts the others in, cannot be sent meanwhile."""
    host = begin()
    vars(host.bus).update(trouble)
    for class_id in ("c-1", "c-2"):
        put(host, class_id=class_id)
        await publish_outbox(host)
    assert follow_up(host, host.settings.alarm_group_s + 1) == ["more"]
    await publish_outbox(host)
    await pass_on(host)
    named = ["c-1", "c-1, c-2"]
    assert [one for one in classes(service) if one.startswith("c-")] == named
    later_s = host.settings.alarm_group_s + host.settings.alarm_quiet_s + 2
    assert follow_up(host, later_s) == [], "what Redis has not heard of is not resolved"
    vars(host.bus).update(is_up=True, refuses=False)
    commit(host.engine, Connection.execute, update(journal.outbox).values(not_before=0))
    assert await publish_outbox(host)
    assert follow_up(host, later_s) == ["resolved"]
    await publish_outbox(host)
    await pass_on(host)
    assert [one for one in classes(service) if one.startswith("c-")] == [*named, "c-1, c-2"]


async def test_people_hear_of_an_alarm_behind_all_that_waits_for_redis(
    begin: Callable[..., TeacherHost], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bookings over HTTP are answered while Redis is away: their messages lie before it, more than are read at once."""
    monkeypatch.setattr(outbox_publisher, "SEND_BATCH", 3)
    host = begin()
    cast("Any", host.bus).is_up = False
    said = outgoing.answer("c-0", 0, "")
    answers = [Outgoing(host.settings.order_result_channel, OutgoingKind.CHANNEL, said, "c-0")] * 4
    commit(host.engine, outbox.put, answers, time.time())
    put(host)
    assert not await publish_outbox(host)
    put(host, 318, "c-3")
    await tell_people(host)
    await pass_on(host)
    assert classes(service) == ["c-1", "c-3"]


async def test_a_process_that_has_just_begun_calls_no_trouble_over(
    begin: Callable[..., TeacherHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its host was stopped for is no quiet time: it sees only when it has looked whether the trouble lasts."""
    monkeypatch.setattr(telling, "FOLLOW_UP_S", 0.01)
    put(stopped := begin())
    assert await publish_outbox(stopped)
    commit(stopped.engine, Connection.execute, update(journal.incidents).values(last_at=time.time() - 3600))
    host = begin()
    watching = asyncio.create_task(telling.watch(host))
    await asyncio.sleep(0.3)
    assert look(host.engine, incidents.open_now)
    monkeypatch.setattr(telling, "SEEN_S", 0.0)
    gone = "the minute in which all is looked at is over"
    await async_wait_until(lambda: not look(host.engine, incidents.open_now), description=gone)
    await cancelled(watching)


async def test_without_services_nothing_is_due_and_nothing_piles_up(begin: Callable[..., TeacherHost]) -> None:
    host = begin("")
    put(host)
    cast("Any", host.bus).is_up = False
    assert not await publish_outbox(host)
    cast("Any", host.bus).is_up = True
    assert await publish_outbox(host)
    await failures._disk(host, "sweeps", "no space left")
    assert (noted(host), len(host.to_people)) == ([None], 0)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
async def test_a_disk_that_takes_nothing_is_told_with_its_own_reason_and_no_other(
    begin: Callable[..., TeacherHost], caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """A broken disk must not be told as full: whoever is woken would look for files to delete."""
    host = begin()
    why = os.strerror(number)
    await failures.report(host, "sweeps", OSError(number, why, "/x"), 1.0)
    told = [*caplog.messages, *host.to_people]
    assert "disk" in told[0]
    assert len(told) > 1
    for one in told:
        rest = one.replace(why, "").replace("disk full", "")  # which is the name of the alarm 316
        assert not [word for word in ("full", "read-only", "quota") if word in rest]


async def test_a_database_that_is_away_for_long_is_told_although_it_can_keep_no_alarm(
    begin: Callable[..., TeacherHost], service: Service
) -> None:
    """Once, however many parts of the process fail; bookings would wait for it, and nobody would know."""
    host = begin()
    away = OperationalError("SELECT", {}, Exception("connection refused"))
    for part in ("streams", "sweeps"):
        await failures.report(host, part, away, 1.0)
        assert not host.to_people, "it may be there again in a moment"
    for part in ("streams", "sweeps"):
        await failures.report(host, part, away, 1.0, lasts=True)
    telling_them = asyncio.create_task(People(host).tell())
    await async_wait_until(lambda: service.got, description="people are told")
    await cancelled(telling_them)
    ((said, *_),) = [one["message"].split("\n") for one in service.got]
    assert said == "teacher: streams does not work: connection refused"


@pytest.mark.parametrize("what", ["a stream", "a channel"])
async def test_an_alarm_that_redis_refuses_something_is_raised_when_the_database_takes_it(
    begin: Callable[..., TeacherHost], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It was not written down, and counted as raised: for minutes nobody was called. It is raised once, then."""
    host = begin()
    put(host, 208)
    cast("Any", host.bus).refuses = True

    async def refused() -> None:
        await (failures.refused_stream(host, "order", "order") if what == "a stream" else publish_outbox(host))

    with monkeypatch.context() as disk:
        disk.setattr(outbox, "put", FULL)
        with pytest.raises(OperationalError):
            await refused()
    for _ in range(3):
        await refused()
    about = "order" if what == "a stream" else "messages for alarm"
    assert [about in one["message"] for one in rows.said(host, "alarm") if one["code"] == 505].count(True) == 1


async def test_an_alarm_that_cannot_be_read_or_no_service_takes_is_given_up_and_not_begun_again(
    begin: Callable[..., TeacherHost],
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(telling, "backoff_s", lambda _: 0.0)
    monkeypatch.setattr(telling, "NOBODY_S", 0.0)
    service.answers = [500] * telling.TRIES + [200]
    host = begin()
    put(host, 207, "c-0")
    put(host)
    put(host, 318, "c-2")
    await publish_outbox(host)
    spoilt = update(journal.outbox).where(journal.outbox.c.id == 1).values(body='{"odd": 1}')
    commit(host.engine, Connection.execute, spoilt)
    await pass_on(host)
    await pass_on(begin())
    assert (noted(host), classes(service)) == (["given up", "given up", "told"], ["c-2"])
    assert sum("nobody could be told" in one.message for one in caplog.records) == 1


async def test_an_alarm_outlasts_a_network_that_is_away_for_a_minute(
    begin: Callable[..., TeacherHost], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is reached then, and each try fails at once: all of them were over, and nobody heard that a class was cut.

    A switch that is started again takes longer; what it does to classes is what the alarm is about.
    """
    monkeypatch.setattr(telling, "backoff_s", lambda _: 0.0)
    service.answers = [500] * 3 * telling.TRIES + [200]
    host = begin()
    put(host)
    await publish_outbox(host)
    await pass_on(host)
    assert (noted(host), classes(service)) == (["told"], ["c-1"])


async def test_people_are_told_once_though_the_database_does_not_take_the_note(
    begin: Callable[..., TeacherHost], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does that hold up the next alarm."""
    host = begin()
    put(host)
    put(host, 318, "c-2")
    await publish_outbox(host)
    its = People(host)

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "note_people", FULL)
        for _ in range(3):
            with pytest.raises(OperationalError):
                await its._pass_on_due()
    assert (classes(service), noted(host)) == (["c-1", "c-2"], ["due", "due"])
    while await its._pass_on_due():
        pass
    assert (len(service.got), noted(host)) == (2, ["told", "told"])


async def test_what_a_host_cannot_write_down_waits_in_memory_and_what_is_dropped_there_is_logged(
    begin: Callable[..., TeacherHost], caplog: pytest.LogCaptureFixture
) -> None:
    host = begin()
    for number in range(failures.ALARMS_KEPT + 1):
        host.alarmed_at.forget()  # a while later
        await failures._disk(host, "sweeps", f"no space left, {number}")
        await failures._disk(host, "inbox", f"no space left, {number}")  # the same trouble, which Redis was not told
    assert len(host.to_people) == failures.ALARMS_KEPT
    (dropped,) = [one.message for one in caplog.records if "is dropped" in one.message]
    assert "no space left, 0" in dropped


@pytest.mark.live
@pytest.mark.parametrize("redis_is_up", [True, False])
async def test_of_teachers_that_share_their_rows_one_passes_an_alarm_on(
    postgresql: Databases, service: Service, monkeypatch: pytest.MonkeyPatch, redis_is_up: bool
) -> None:
    """And if that one dies before, another does, the alarms of the dead one among them."""
    monkeypatch.setattr(telling, "backoff_s", lambda _: 0.3)
    url = postgresql.laid()
    both = [teacher(url, service.hook, name) for name in "ab"]
    a, b = both
    for one in both:
        cast("Any", one.bus).is_up = redis_is_up
    service.answers = [500, 500, 200]
    put(a)
    await publish_outbox(a)
    passing = asyncio.create_task(pass_on(a))
    await async_wait_until(lambda: len(service.answers) < 3, description="the first try of a")
    await a.write_tx(leases.free_claims, "a", "a", keeps=(TELLING,))  # as a teacher that Redis does not answer does
    assert not await is_ours(b, TELLING, 1), "a's try may be under way"
    await pass_on(b)
    await passing
    await asyncio.gather(pass_on(a), pass_on(b))
    assert (classes(service), noted(a)) == (["c-1"], ["told"])

    put(a, 318, "c-2")
    await publish_outbox(a)
    assert await is_ours(a, TELLING, 3600)
    await pass_on(b)
    assert len(service.got) == 1
    await b.write_tx(leases.free_claims, "a", "b")
    await pass_on(b)
    assert classes(service) == ["c-1", "c-2"]
    for one in both:
        one.engine.dispose()


@pytest.mark.parametrize("is_copy", [False, True], ids=["it is away", "it takes no writes"])
async def test_a_redis_that_is_away_is_told_to_people_who_need_no_redis(
    begin: Callable[..., TeacherHost], service: Service, monkeypatch: pytest.MonkeyPatch, *, is_copy: bool
) -> None:
    """Once, with its incident open while it is away; what hides behind classes that go on is alarmed all the same.

    One that answers and takes no writes, as after a failover, was no alarm before a loop had failed for a minute.
    """
    monkeypatch.setattr(instance_lock, "AWAY_S", 0.2)
    monkeypatch.setattr(instance_lock, "RENEW_S", 0.05)
    found = begin()
    found.bus = cast("Bus", Redis(is_copy=True)) if is_copy else Bus.open("redis://127.0.0.1:1/0")
    keeping = QueueLock(found.settings).keep(found)
    works = [asyncio.create_task(keeping), asyncio.create_task(People(found).tell())]
    try:
        await async_wait_until(lambda: len(service.got) == 1, description="people were told of it")
        assert "508" in str(service.got)
        assert errors.REDIS_AWAY.number in patience(found).goes_on
        await asyncio.sleep(0.5)  # nothing is said again
        assert len(service.got) == 1
        back = Redis()
        found.bus = cast("Bus", back)
        await async_wait_until(lambda: back.asked > 1, description="Redis is asked")
        seen = found.ongoing[errors.REDIS_AWAY.number]
        await async_wait_until(lambda: back.asked > 4, description="it is asked again and again")
        assert found.ongoing[errors.REDIS_AWAY.number] == seen, "it is seen no more"
    finally:
        for work in works:
            work.cancel()
        await asyncio.wait(works)
