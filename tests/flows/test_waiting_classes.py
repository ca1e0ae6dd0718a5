"""Classes that wait for renditions: a person hears of it before their start, and the platform by their end."""

import asyncio
import json
import time
from typing import Any, cast

import pytest
from sqlalchemy import Connection, insert, select, update

from flows import handling
from flows.host import TeacherHost, current
from flows.teacher import maintenance, transcoding
from flows.teacher.ecs import job
from lectern.db import bookings, inbox, transcodings
from lectern.db.engine import transaction
from lectern.db.transcodings import BegunJob
from lectern.errors import ENDED
from lectern.model.facts import Attempt, RenditionKey
from lectern.model.tables.teacher import journal, orders, videos
from lectern.states import Backend, BookingState, RenditionState, Resolution
from tests import strategies
from tests.faults import hosts
from tests.rows import commit, ended_in

SERVER = "ssh://ecs@one.example:22"


@pytest.fixture
def teacher(teacher: TeacherHost) -> TeacherHost:
    """A teacher with a class that begins in four minutes, and waits for its rendition."""
    now = time.time()
    one = strategies.booking("c-1", start_time=now + 240, end_time=now + 600)
    commit(teacher.engine, bookings.add, [(one, BookingState.WAITING)], now - 3600)
    return teacher


def said(host: TeacherHost) -> list[dict[str, Any]]:
    """What is in the outbox since this was asked last, without the events of classes."""
    with transaction(host.engine) as connection:
        found = [json.loads(body) for body in connection.execute(select(journal.outbox.c.body)).scalars()]
        connection.execute(journal.outbox.delete())
    return [one for one in found if one["cmd"] != "class_event"]


async def quiet(_: TeacherHost) -> bool:
    return True


async def test_a_class_that_is_moved_after_its_last_check_is_checked_before_its_new_start_too(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "publish_outbox", quiet)
    now = time.time()
    done = await maintenance.check_of_teacher(teacher, {}, now)
    assert [one["code"] for one in said(teacher)] == [324]
    done = await maintenance.check_of_teacher(teacher, done, now + 15)
    assert said(teacher) == [], "once"
    commit(teacher.engine, Connection.execute, update(orders).values(start_time=now + 1200, end_time=now + 1800))
    for at in (now + 30, now + 310, now + 905):
        done = await maintenance.check_of_teacher(teacher, done, at)
    assert [one["code"] for one in said(teacher)] == [324, 324, 324], "an hour, a quarter and five minutes before it"


async def test_who_hears_that_a_class_is_not_made_yet_hears_about_when_it_will_be(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "publish_outbox", quiet)
    now = time.time()
    made = {"resolution": "720P", "backend": "oss", "requested_at": now - 600, "updated_at": now - 480}
    with transaction(teacher.engine) as connection:
        connection.execute(insert(videos), [{"record_id": one, "status": "success", **made} for one in range(1, 6)])
        under_way = made | {"requested_at": now - 60}
        connection.execute(insert(videos).values(record_id=6666, status="transcoding", **under_way))
    await maintenance.check_of_teacher(teacher, {}, now)
    (alarm,) = said(teacher)
    assert "it will be made at about " in alarm["message"]


async def test_a_class_that_has_ended_while_it_waited_is_answered_then(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when its rendition is made or given up: the server that is to make it may have a long queue, or be away."""
    lists = Lists()
    teacher.bus = cast("Any", lists)
    monkeypatch.setattr(transcoding, "publish_outbox", quiet)
    await maintenance._sweep(teacher, False)
    assert said(teacher) == [], "it has not begun"
    over = time.time() - 60
    with transaction(teacher.engine) as connection:
        connection.execute(update(orders).values(start_time=over - 600, end_time=over))
    await maintenance._sweep(teacher, False)
    answer, alarm = sorted(said(teacher), key=lambda one: str(one["cmd"]), reverse=True)
    assert (answer["cmd"], answer["result"], answer["code"]) == ("order_result", "fail", ENDED.number)
    assert (alarm["cmd"], alarm["class_id"], alarm["code"]) == ("alarm", "c-1", ENDED.number)
    assert "it ended before its rendition was there" in alarm["message"]
    assert lists.left == [("6666_720P", "c-1")]
    with transaction(teacher.engine) as connection:
        assert bookings.waiting_for(connection, 6666, Resolution.P720) == []


async def test_a_sweep_is_shown_only_if_it_has_found_something_to_do(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes twice a minute for ever."""
    current.set(teacher)
    teacher.bus = cast("Any", Lists())
    for module in (handling, transcoding):
        monkeypatch.setattr(module, "publish_outbox", quiet)
    await maintenance.sweep_teacher.fn()
    assert commit(teacher.engine, inbox.unrecorded, journal, 9) == []
    over = time.time() - 60
    commit(teacher.engine, Connection.execute, update(orders).values(start_time=over - 600, end_time=over))
    await maintenance.sweep_teacher.fn()
    await maintenance.sweep_teacher.fn()
    (shown,) = commit(teacher.engine, inbox.unrecorded, journal, 9)
    assert (shown.command, json.loads(shown.said or "")[0]["class"]) == ("sweep", "c-1")


async def test_a_rendition_that_waits_for_its_turn_on_a_server_is_not_timed_out(teacher: TeacherHost) -> None:
    """While the OSS is down all are made there, and a queue may be hours long; its class may begin tomorrow."""
    teacher.settings = teacher.settings.model_copy(update={"ecs_hosts": SERVER, "max_ecs_jobs": 1})
    now, ours, theirs = time.time(), (6666, Resolution.P720), (7, Resolution.P720)
    with transaction(teacher.engine) as connection:
        url = "http://origin.example/1.flv"
        attempts = [Attempt(*key, 1, 1, now, Backend.ECS, now + 60, url) for key in (ours, theirs)]
        transcodings.begin(connection, attempts, now)
        at_work = transcodings.take(connection, [theirs], "their run", job.LEASE_S, now)
        transcodings.attach(connection, at_work, "their run", BegunJob(SERVER, "their job", now))
        due = transcodings.take(connection, [ours], "our run", job.LEASE_S, now)
    waiting = [job.TranscodeJob(teacher, due, "our run")]
    assert await teacher.write_tx(job.assign, teacher, waiting) == {}
    with transaction(teacher.engine) as connection:
        late = transcodings.overdue(connection, now + 120)
        assert [one.key for one in late] == [theirs], "what is at work there has a time of its own"


class Lists:
    """The waiting lists in Redis."""

    def __init__(self) -> None:
        self.left: list[tuple[str, str]] = []

    async def leave_waiting(self, key: str, class_id: str) -> None:
        self.left.append((key, class_id))


RENDITIONS = 400


def overdue(host: TeacherHost, *keys: RenditionKey) -> None:
    """Renditions that the OSS was asked for, and that are not there after their time."""
    now = time.time()
    with transaction(host.engine) as connection:
        attempts = [Attempt(*one, 1, 1, now, Backend.OSS, now - 1, "http://origin.example/1.flv") for one in keys]
        transcodings.begin(connection, attempts, now - 60)
        for key in keys:
            transcodings.requested(connection, key, now - 60)


@pytest.fixture
def alone(teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch) -> TeacherHost:
    """A teacher that has a streamer, no lists of an old program, and tells nobody how a transcoding goes on."""
    teacher.membership_cache = time.monotonic() + 3600, ("streamer1",)

    async def nobody(_host: Any, keys: Any) -> transcoding.Lists:
        return {key: [] for key in keys}

    async def nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(transcoding, "old_waiters", nobody)
    monkeypatch.setattr(transcoding, "follow", nothing)
    return teacher


async def test_of_very_many_outputs_some_are_looked_for(alone: TeacherHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage that is slow to answer would take all sockets of the process, and each rendition is settled still."""
    keys = [(number, Resolution.P720) for number in range(1, RENDITIONS + 1)]
    overdue(alone, *keys)
    looking, most, answers = 0, 0, asyncio.Event()

    async def slow(*_: object) -> None:
        nonlocal looking, most
        looking += 1
        most = max(most, looking)
        if looking == transcoding.LOOKS:
            asyncio.get_running_loop().call_later(0.1, answers.set)  # whoever else does not wait begins before it
        await answers.wait()
        looking -= 1

    monkeypatch.setattr(transcoding, "output_there", slow)
    await transcoding.time_out(alone)
    assert most == transcoding.LOOKS < RENDITIONS
    states = commit(alone.engine, transcodings.states, keys).values()
    assert {one.state for one in states} == {RenditionState.TIMED_OUT}


def test_what_a_result_settled_while_its_output_was_looked_for_is_not_settled_again(teacher: TeacherHost) -> None:
    """Its result came late and was a success: no waiting class is refused; the others are timed out."""
    settled, silent = keys = [(number, Resolution.P720) for number in (1, 2)]
    overdue(teacher, *keys)
    now = time.time()
    with transaction(teacher.engine) as connection:
        late = [(one, None) for one in transcodings.overdue(connection, now)]
        assert {one.key for one, _ in late} == {*keys}
        url = "http://origin.example/1_720P.flv"
        ended_in(connection, settled, RenditionState.SUCCESS, now, deadline=None, url=url)
        go = transcoding.expired(late, hosts.ALIVE, {key: [] for key in keys})
        changes = handling.change(connection, teacher, go)
        assert changes.ended == [silent]
        found = transcodings.states(connection, keys)
        assert (found[settled].state, found[silent].state) == (RenditionState.SUCCESS, RenditionState.TIMED_OUT)


async def test_a_result_that_comes_while_its_output_is_looked_for_goes_before_its_deadline(
    alone: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its class would be refused, although its rendition is made; the next sweep finds it settled."""
    now, key = time.time(), (6666, Resolution.P720)
    overdue(alone, key)
    came = inbox.ReceivedMessage("test", "transcoding", strategies.result(success=True).to_json())

    async def absent(*_: object) -> None:
        commit(alone.engine, inbox.keep, journal, [came], now)

    monkeypatch.setattr(transcoding, "output_there", absent)
    await transcoding.time_out(alone)
    assert said(alone) == []
    assert commit(alone.engine, transcodings.states, [key])[key].state is RenditionState.TRANSCODING
