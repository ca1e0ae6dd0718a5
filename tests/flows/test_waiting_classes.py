"""Classes that wait for renditions: a person hears of it before their start, and the platform by their end."""

import asyncio
import json
import time
from typing import Any, cast

import pytest
from sqlalchemy import Connection, func, insert, select, update

from flows import handling
from flows.host import TeacherHost, current
from flows.teacher import bookings as at_bookings
from flows.teacher import maintenance, transcoding
from flows.teacher.ecs import job
from lectern.db import bookings, inbox, transcodings
from lectern.db.engine import transaction
from lectern.db.transcodings import BegunJob
from lectern.db.writer import write
from lectern.errors import ENDED
from lectern.model.facts import Attempt, RenditionKey
from lectern.model.plan import Changes
from lectern.model.tables.teacher import journal, orders, videos
from lectern.states import Backend, BookingState, RenditionState, Resolution
from lectern.wire.messages import Change, Report
from tests import strategies
from tests.faults import hosts
from tests.faults.turns import Quiet
from tests.rows import came, claimed, commit, ended_in, news, unsent

SERVER = "ssh://ecs@one.example:22"


class Lists(Quiet):
    """The waiting lists in Redis, of which it is noted who leaves them."""

    def __init__(self) -> None:
        self.left: list[tuple[str, str]] = []

    async def leave_waiting(self, key: str, class_id: str) -> None:
        self.left.append((key, class_id))


@pytest.fixture
def teacher(teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch) -> TeacherHost:
    """A teacher with a class that begins in four minutes, and waits for its rendition; its outbox is not sent."""
    for module in (handling, maintenance, transcoding):
        monkeypatch.setattr(module, "publish_outbox", unsent)
    teacher.bus = cast("Any", Lists())
    now = time.time()
    one = strategies.booking("c-1", start_time=now + 240, end_time=now + 600)
    commit(teacher.engine, bookings.add, [(one, BookingState.WAITING)], now - 3600)
    return teacher


async def test_a_class_that_is_moved_after_its_last_check_is_checked_before_its_start(teacher: TeacherHost) -> None:
    now = time.time()
    done = await maintenance.check_of_teacher(teacher, {}, now)
    assert [one["code"] for one in news(teacher)] == [324]
    done = await maintenance.check_of_teacher(teacher, done, now + 15)
    assert news(teacher) == [], "once"
    commit(teacher.engine, Connection.execute, update(orders).values(start_time=now + 1200, end_time=now + 1800))
    for at in (now + 30, now + 310, now + 905):
        done = await maintenance.check_of_teacher(teacher, done, at)
    assert [one["code"] for one in news(teacher)] == [324, 324, 324], "an hour, a quarter and five minutes before it"


async def test_who_hears_that_a_class_is_not_made_yet_hears_about_when_it_will_be(teacher: TeacherHost) -> None:
    now = time.time()
    made = {"resolution": "720P", "backend": "oss", "requested_at": now - 600, "updated_at": now - 480}
    with transaction(teacher.engine) as connection:
        connection.execute(insert(videos), [{"record_id": one, "status": "success", **made} for one in range(1, 6)])
        under_way = made | {"requested_at": now - 60}
        connection.execute(insert(videos).values(record_id=6666, status="transcoding", **under_way))
    await maintenance.check_of_teacher(teacher, {}, now)
    (alarm,) = news(teacher)
    assert "it will be made at about " in alarm["message"]


def end(host: TeacherHost) -> None:
    """The class is over for a minute."""
    over = time.time() - 60
    commit(host.engine, Connection.execute, update(orders).values(start_time=over - 600, end_time=over))


async def test_a_class_that_has_ended_while_it_waited_is_answered_then(teacher: TeacherHost) -> None:
    """Not when its rendition is made or given up: the server that is to make it may have a long queue, or be away."""
    await maintenance._sweep(teacher, False)
    assert news(teacher) == [], "it has not begun"
    end(teacher)
    await maintenance._sweep(teacher, False)
    answer, alarm = sorted(news(teacher), key=lambda one: str(one["cmd"]), reverse=True)
    assert (answer["cmd"], answer["result"], answer["code"]) == ("order_result", "fail", ENDED.number)
    assert (alarm["cmd"], alarm["class_id"], alarm["code"]) == ("alarm", "c-1", ENDED.number)
    assert "it ended before its rendition was there" in alarm["message"]
    assert cast("Any", teacher.bus).left == [("6666_720P", "c-1")]
    assert commit(teacher.engine, bookings.waiting_for, 6666, Resolution.P720) == []


async def test_a_change_that_holds_takes_the_one_before_it_off_its_waiting_list(teacher: TeacherHost) -> None:
    """The earlier one waited for a rendition that its class does not need any more."""
    current.set(teacher)
    changes = Changes(teacher.settings, time.time())
    booked = strategies.booking(start_time=changes.now + 3600, end_time=changes.now + 4200)
    for id_ in ("c-2", "c-2^2"):
        changes.place(changes.book(booked.under(id_)), hosts.ALIVE[0], "http://origin.example/6666.flv")
        changes.move(changes.orders[id_], BookingState.READY)
    changes.move(changes.book(booked.under("c-2^1")), BookingState.WAITING)
    changes.sends.clear()
    commit(teacher.engine, write, journal, changes)
    its: dict[str, Any] = {"class_id": "c-2^2", "streamer": hosts.ALIVE[0], "placement": 1, "of_placement": 1}
    (report,) = came(teacher, Report(cmd="amended", result="success", **its))
    await at_bookings.report.fn(str(report.id))
    assert cast("Any", teacher.bus).left == [("6666_720P", "c-2^1")]


async def test_a_change_that_waits_for_its_booking_undoes_no_later_one(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_bookings, "follow", unsent)
    current.set(teacher)
    start = time.time() + 3600

    def come(message: Any) -> str:
        arrived = [inbox.ReceivedMessage("channel:x", message.cmd, message.to_json())]
        commit(teacher.engine, inbox.keep, journal, arrived, time.time())
        return str(commit(teacher.engine, Connection.execute, select(func.max(journal.inbox.c.id))).scalar_one())

    first = come(Change(cmd="change", class_id="c-2", end_time=start + 700))
    await at_bookings.change.fn(inbox_ids=first)  # waits for its booking
    booked = strategies.booking("c-2", start_time=start, end_time=start + 600)
    await at_bookings.booking.fn(inbox_ids=come(booked))
    come(Change(cmd="change", class_id="c-2", end_time=start + 800))
    for _ in range(3):  # as the consumer claims what is due
        if due := claimed(teacher, "change"):
            await at_bookings.change.fn(inbox_ids=inbox.format_id_ranges([one.id for one in due]))
        commit(teacher.engine, Connection.execute, update(journal.inbox).values(not_before=0))
    order = commit(teacher.engine, bookings.by_id, ["c-2"])["c-2"]
    assert order.end_time - start == 800, "the last change holds"


async def test_a_sweep_is_shown_only_if_it_has_found_something_to_do(teacher: TeacherHost) -> None:
    """It comes twice a minute for ever."""
    current.set(teacher)
    await maintenance.sweep_teacher.fn()
    assert commit(teacher.engine, inbox.unrecorded, journal, 9) == []
    end(teacher)
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
    """A teacher that tells nobody how a transcoding goes on."""
    monkeypatch.setattr(transcoding, "follow", unsent)
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
    arrived = inbox.ReceivedMessage("test", "transcoding", strategies.result(success=True).to_json())

    async def absent(*_: object) -> None:
        commit(alone.engine, inbox.keep, journal, [arrived], now)

    monkeypatch.setattr(transcoding, "output_there", absent)
    await transcoding.time_out(alone)
    assert news(alone) == []
    assert commit(alone.engine, transcodings.states, [key])[key].state is RenditionState.TRANSCODING
