"""Classes that wait for renditions: a person hears of it before their start, and the platform by their end."""

import asyncio
import json
import math
import re
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from sqlalchemy import Column, Connection, insert, update

from flows import handling
from flows.host import TeacherHost, current
from flows.prefect_api import NewRun
from flows.resident.consumer import Handler
from flows.teacher import bookings as at_bookings
from flows.teacher import maintenance, transcoding
from flows.teacher.ecs import job
from lectern.db import bookings, inbox, transcodings
from lectern.db.engine import transaction
from lectern.db.transcodings import BegunJob
from lectern.db.writer import write
from lectern.decide.readiness import LATE_AFTER_S
from lectern.errors import NOT_READY_FOR_START, STALE_WAITING
from lectern.model.facts import Attempt
from lectern.model.plan import Changes
from lectern.model.tables.teacher import cancels, journal, orders, videos
from lectern.states import Backend, BookingState, RenditionState, Resolution
from lectern.wire.messages import Amend, Change, Prepare
from tests import strategies
from tests.answering import serving
from tests.faults import hosts
from tests.faults.turns import Quiet
from tests.rows import begin, came, claimed, comes, commit, look, news, placed, said, unsent

SERVER = "ssh://ecs@one.example:22"
P240, P720 = Resolution.P240, Resolution.P720


@pytest.fixture
def teacher(teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch) -> TeacherHost:
    """A teacher with a class that begins in four minutes, and waits for its rendition; its outbox is not sent."""
    for module in (handling, maintenance, transcoding):
        monkeypatch.setattr(module, "publish_outbox", unsent)
    bus: Any = Quiet()
    for name in ("join_waiting", "drop_waiting", "leave_waiting"):
        setattr(bus, name, AsyncMock())
    teacher.bus = teacher.runs = bus
    commit(teacher.engine, bookings.add, [(hosts.booking("c-1", 240), BookingState.WAITING)], time.time() - 3600)
    return teacher


async def test_a_class_that_is_moved_after_its_last_check_is_checked_before_its_start(teacher: TeacherHost) -> None:
    now = time.time()
    done = await maintenance.check_of_teacher(teacher, {}, now)
    assert [one["code"] for one in news(teacher)] == [324]
    for later_s in (15, 30):
        done = await maintenance.check_of_teacher(teacher, done, now + later_s)
    assert news(teacher) == [], "once"
    commit(teacher.engine, Connection.execute, update(orders).values(start_time=now + 1200, end_time=now + 1800))
    for at in (now + 45, now + 310, now + 905):
        done = await maintenance.check_of_teacher(teacher, done, at)
    assert [one["code"] for one in news(teacher)] == [324, 324, 324], "an hour, a quarter and five minutes before it"


async def test_who_hears_that_a_class_is_late_hears_when_it_will_be_made_or_which_streamer_lacks_it(
    teacher: TeacherHost,
) -> None:
    """A streamer has half a minute; with no class that is late, none is said to be."""
    now = time.time()
    made = {"resolution": "720P", "backend": "oss", "requested_at": now - 600, "updated_at": now - 480}
    under_way = made | {"record_id": 6666, "status": "transcoding", "requested_at": now - 60}
    with transaction(teacher.engine) as connection:
        connection.execute(insert(videos), [{"record_id": one, "status": "success", **made} for one in range(1, 6)])
        connection.execute(insert(videos).values(**under_way))
    given(teacher)
    assert await maintenance.check_of_teacher(teacher, {}, now - 4000) == {}
    assert NOT_READY_FOR_START.number not in teacher.ongoing
    told = dict[str, Any]()
    for ago_s, late in ((LATE_AFTER_S - 10, {"c-1"}), (LATE_AFTER_S + 10, {"c-1", "c-2"})):
        booked_at = {"start_time": now + 200, "received_at": time.time() - ago_s}
        commit(teacher.engine, Connection.execute, update(orders).where(orders.c.class_id == "c-2").values(booked_at))
        await maintenance.check_of_teacher(teacher, {}, time.time())
        told = {one["class_id"]: one for one in news(teacher) if one["cmd"] == "alarm"}
        assert told.keys() == late
    waits, given_away = told["c-1"]["message"], told["c-2"]["message"]
    assert ["it will be made at about " in one for one in (waits, given_away)] == [True, False]
    assert [hosts.ALIVE[0] in one for one in (waits, given_away)] == [False, True]
    assert told["c-1"]["args"].get("left_s", 0) < 300
    assert NOT_READY_FOR_START.number in teacher.ongoing


@pytest.mark.parametrize("state", [BookingState.READY, BookingState.CANCELLED])
async def test_nobody_is_called_for_a_class_that_is_ready_or_cancelled_while_its_check_waits_for_other_writers(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch, state: BookingState
) -> None:
    """In a storm that takes seconds; nor does the platform hear last that it is not ready."""
    changed = handling.changed

    async def in_turn(host: TeacherHost, decide: handling.Decide[Changes], *, dry_run: bool) -> Changes:
        commit(host.engine, Connection.execute, update(orders).values(state=state))
        return await changed(host, decide, dry_run=dry_run)

    monkeypatch.setattr(handling, "changed", in_turn)
    assert len(await maintenance.check_of_teacher(teacher, {}, time.time())) == 1
    assert said(teacher) == []


KEY = (7, P720)


def is_to_be_made(host: TeacherHost, by: Backend) -> None:
    commit(host.engine, begin, KEY, by=by, in_s=3600)


def is_anothers(host: TeacherHost) -> None:
    is_to_be_made(host, Backend.ECS)
    commit(host.engine, transcodings.take, [KEY], "gone", 60, time.time())


def given(host: TeacherHost) -> None:
    placed(host, hosts.booking("c-2"), hosts.ALIVE[0])


def is_over(host: TeacherHost) -> None:
    placed(host, hosts.booking("c-2", -9000), hosts.ALIVE[0], ready=True)


def is_changed(host: TeacherHost) -> None:
    """Of two changes of a class that is ready the first waits for its rendition, the second is to be applied."""
    changes, booked = Changes(host.settings, time.time()), hosts.booking()
    for id_ in ("c-2", "c-2^2"):
        changes.place(changes.book(booked.under(id_)), hosts.ALIVE[0], "http://origin.example/6666.flv")
        changes.move(changes.orders[id_], BookingState.READY)
    changes.move(changes.book(booked.under("c-2^1")), BookingState.WAITING)
    changes.sends.clear()
    commit(host.engine, write, changes)


GRACE_S = 60.0  # as if a sweep left what is new for so long: a busy machine is slow

on_oss, on_ecs = (partial(is_to_be_made, by=one) for one in (Backend.OSS, Backend.ECS))
DUE: dict[str, tuple[Callable[[TeacherHost], None], Column[Any], float, list[int]]] = {
    "a request that nobody makes": (on_oss, videos.c.updated_at, GRACE_S, [0, 0, 0]),
    "a job that nobody does": (on_ecs, videos.c.updated_at, GRACE_S, [1, 0, 0]),
    "a job whose owner is gone": (is_anothers, videos.c.lease_until, 0.0, [1, 0, 0]),
    "a class that waits for a day": (lambda _: None, orders.c.received_at, 86_400.0, [0, 1, 0]),
    "a class of which its streamer says nothing": (given, orders.c.updated_at, maintenance.UNREPORTED_S, [0, 0, 1]),
    "a class of whose end it says nothing": (is_over, orders.c.updated_at, maintenance.UNREPORTED_S, [0, 0, 1]),
    "a change of which it says nothing": (is_changed, orders.c.updated_at, maintenance.UNREPORTED_S, [0, 0, 1]),
    "a class that ended while it waited": (lambda _: None, orders.c.end_time, GRACE_S, [0, 0, 1]),
}
"""What is overlooked, by which time of its row, and for how many seconds it is somebody else's.

And what the sweep counts then: owners that are lost, classes that are late, and what it told again.
"""


@pytest.mark.parametrize("what", DUE)
async def test_a_sweep_takes_up_what_is_overlooked_and_nothing_before(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A dry run takes up nothing."""
    monkeypatch.setattr(maintenance, "GRACE_S", GRACE_S)
    put, column, within_s, said = DUE[what]
    begun = list[NewRun]()
    teacher.background = cast("Any", SimpleNamespace(begin=lambda _, run: begun.append(run)))
    put(teacher)
    news(teacher)
    young_s, old_s, summary, began = within_s - 30, within_s + 2, "", time.monotonic()
    for ago_s, dry_run, is_due in ((young_s, False, False), (old_s, True, False), (old_s, False, True)):
        commit(teacher.engine, Connection.execute, update(column.table).values({column: time.time() - ago_s}))
        _, summary, _ = await maintenance._sweep(teacher, dry_run)
        assert (len(begun) + len(news(teacher)) > 0) is is_due
    assert [int(number) for number in re.findall(r"\d+", summary)][1:] == said
    assert (STALE_WAITING.number in teacher.ongoing) is bool(said[1])
    lasts_until = teacher.ongoing.get(STALE_WAITING.number, math.inf)
    assert lasts_until >= began + teacher.settings.sweep_interval_s, "until the next sweep looks"
    teacher.ongoing.clear()
    commit(teacher.engine, Connection.execute, update(orders).values(state=BookingState.CANCELLED))
    await maintenance._sweep(teacher, dry_run=False)
    assert STALE_WAITING.number not in teacher.ongoing, "it waits no longer"


@pytest.mark.parametrize(
    ("silent_s", "waited_s", "starts_in_s", "is_due"),
    [
        (59, 0, 86_400, False),
        (61, 0, 86_400, True),
        (590, 600, 86_400, False),
        (601, 600, 86_400, True),
        (590, 600, 5_000, True),
        (61, 600, 500, True),
        (61, 600, -100, True),
        (3_590, 86_400, 864_000, False),
        (3_601, 86_400, 864_000, True),
    ],
)
def test_a_class_whose_download_waits_for_the_night_is_sent_again_seldom_but_often_enough_before_its_start(
    teacher: TeacherHost, silent_s: float, waited_s: float, starts_in_s: float, is_due: bool
) -> None:
    """There may be thousands: each sending is a row on both hosts, and makes a run of the sweep and of the streamer."""
    given(teacher)
    now = time.time()
    its = {"start_time": now + starts_in_s, "end_time": now + starts_in_s + 600}
    its |= {"updated_at": now - silent_s, "received_at": now - silent_s - waited_s}
    commit(teacher.engine, Connection.execute, update(orders).where(orders.c.class_id == "c-2").values(**its))
    changes = Changes(teacher.settings, now)
    commit(teacher.engine, maintenance.overlooked(math.inf), changes)
    told = [one.class_id for one in changes.sends if isinstance(one.message, Prepare)]
    assert told == ["c-2"] * is_due


@pytest.mark.parametrize("applied", [["c-2^1"], []], ids=["it applies one already", "its first"])
def test_a_silent_streamer_is_told_again_what_it_was_told_last_of_a_change(
    teacher: TeacherHost, applied: list[str]
) -> None:
    """To prepare the second, and to apply the first, which it has prepared."""
    for class_id in ("c-2", *applied, "c-2^2"):
        placed(teacher, hosts.booking().under(class_id), hosts.ALIVE[0], ready=class_id != "c-2^2")
    commit(teacher.engine, Connection.execute, update(orders).values(updated_at=time.time() - 4000))
    changes = Changes(teacher.settings, time.time())
    commit(teacher.engine, maintenance.overlooked(math.inf), changes)
    assert [one.message.class_id for one in changes.sends if isinstance(one.message, Prepare)] == ["c-2^2"]
    assert [one.message.revision for one in changes.sends if isinstance(one.message, Amend)] == applied


@pytest.mark.parametrize(
    ("heard_s", "state", "answers"), [(-math.inf, "ready", 0), (59, "ready", 0), (61, "ready", 1), (301, "broken", 1)]
)
async def test_nothing_that_ended_while_redis_or_its_teacher_was_away_is_closed_before_reports_can_have_come(
    teacher: TeacherHost, heard_s: float, state: str, answers: int
) -> None:
    """The platform heard of a class that it was not aired, and people that nobody knows; it was aired to its end.

    A cancel that its streamer has confirmed in time is not said to have failed.
    """
    for class_id in ("c-2", "c-3"):
        placed(teacher, hosts.booking(class_id, -9000), hosts.ALIVE[0], ready=True)
    waits = {"streamer": hosts.ALIVE[0], "cancelled_at": 1.0, "told_at": 1.0, "until": time.time() - 60}
    commit(teacher.engine, Connection.execute, insert(cancels).values(class_id="c-3", **waits))
    commit(
        teacher.engine, Connection.execute, update(orders).where(orders.c.class_id == "c-3").values(state="cancelled")
    )
    teacher.listens_since = time.monotonic() - heard_s
    await maintenance._sweep(teacher, dry_run=False)
    assert commit(teacher.engine, bookings.by_id, ["c-2"])["c-2"].state == state
    assert len(said(teacher, "cancel_result")) == answers


async def test_a_change_that_waits_for_its_booking_undoes_no_later_one(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = AsyncMock()
    monkeypatch.setattr(at_bookings, "follow", followed)
    current.set(teacher)
    booked = hosts.booking("c-2")
    first, second = (Change(class_id="c-2", end_time=booked.end_time + more_s) for more_s in (100, 200))
    ids = comes(teacher, first)
    await at_bookings.change.fn(inbox_ids=ids)  # waits for its booking
    await at_bookings.booking.fn(inbox_ids=comes(teacher, booked))
    comes(teacher, second)
    for _ in range(3):  # as the consumer claims what is due
        if due := claimed(teacher, "change"):
            await at_bookings.change.fn(inbox_ids=inbox.format_id_ranges([one.id for one in due]))
        commit(teacher.engine, Connection.execute, update(journal.inbox).values(not_before=0))
    order = commit(teacher.engine, bookings.by_id, ["c-2"])["c-2"]
    assert order.end_time == second.end_time, "the last change holds"
    followed.reset_mock()
    for dry_run in (True, False):
        await at_bookings.change.fn(inbox_ids=ids, dry_run=dry_run)
        assert followed.call_count == (not dry_run)


@pytest.mark.parametrize("crashes", [False, True], ids=["it failed", "all crashed"])
async def test_a_change_that_waits_has_not_failed_with_one_that_came_beside_it(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch, *, crashes: bool
) -> None:
    """Its try was counted, and a run said that it was not handled."""

    def fails(*_: object, **__: object) -> None:
        raise KeyError("odd")

    monkeypatch.setattr(at_bookings, "handled" if crashes else "decided_changes", fails)
    waits, odd = Change(class_id="c-9", end_time=3e9), Change(class_id="c-1", end_time=3e9)
    kept = came(teacher, waits, odd)
    await Handler(teacher, {"change": at_bookings.change}).handle("change", kept)
    left = look(teacher.engine, inbox.read, [one.id for one in kept])
    assert [one.tries for one in left] == [0, 1]
    (shown,) = commit(teacher.engine, inbox.unrecorded, 9)
    assert [one["class"] for one in json.loads(shown.said or "")] == ["c-1"]


async def test_a_change_is_decided_beside_one_whose_class_id_is_a_list(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole batch failed by it, a run said so of each class, and all waited for ever smaller batches."""
    monkeypatch.setattr(at_bookings, "follow", AsyncMock())
    current.set(teacher)
    ends = time.time() + 5000
    ids = comes(teacher, '{"cmd": "change", "class_id": ["c-1"]}', Change(class_id="c-1", end_time=ends))
    await at_bookings.change.fn(inbox_ids=ids)
    assert commit(teacher.engine, bookings.by_id, ["c-1"])["c-1"].end_time == ends
    assert commit(teacher.engine, inbox.waiting) == 0


async def test_a_sweep_is_shown_only_if_it_has_found_something_to_do(teacher: TeacherHost) -> None:
    """It comes twice a minute for ever."""
    current.set(teacher)
    await maintenance.sweep_teacher.fn()
    assert commit(teacher.engine, inbox.unrecorded, 9) == []
    over = update(orders).values(start_time=time.time() - 660, end_time=time.time() - 60)
    commit(teacher.engine, Connection.execute, over)
    await maintenance.sweep_teacher.fn()
    await maintenance.sweep_teacher.fn()
    (shown,) = commit(teacher.engine, inbox.unrecorded, 9)
    assert (shown.command, json.loads(shown.said or "")[0]["class"]) == ("sweep", "c-1")


async def test_a_rendition_that_waits_for_its_turn_on_a_server_is_not_timed_out(teacher: TeacherHost) -> None:
    """While the OSS is down all are made there, and a queue may be hours long; its class may begin tomorrow."""
    teacher.settings = teacher.settings.model_copy(update={"ecs_hosts": SERVER, "max_ecs_jobs": 1})
    now, ours, theirs = time.time(), (6666, P720), KEY
    with transaction(teacher.engine) as connection:
        begin(connection, ours, theirs, by=Backend.ECS)
        at_work = transcodings.take(connection, [theirs], "their run", 120, now)
        transcodings.attach(connection, at_work, "their run", BegunJob(SERVER, "their job", now))
        due = transcodings.take(connection, [ours], "our run", job.LEASE_S, now)
    waiting = [job.TranscodeJob(teacher, due, "our run")]
    assert await teacher.write_tx(job.assign, teacher, waiting) == {}
    with transaction(teacher.engine) as connection:
        late = transcodings.overdue(connection, now + 120)
        assert [one.key for one in late] == [theirs], "what is at work there has a time of its own"
        assert transcodings.ownerless(connection, 0.0, now + 30) == [], "nobody else takes it up"


@pytest.mark.parametrize(
    ("status", "body", "is_there", "is_gone"),
    [
        (200, b"FLV", True, False),
        (200, b"<html>There is no such file here.</html>", False, False),
        (404, b"", False, True),
        (503, b"", False, False),
    ],
)
async def test_only_a_storage_that_answers_says_whether_an_output_is_there_or_gone(
    teacher: TeacherHost, status: int, body: bytes, *, is_there: bool, is_gone: bool
) -> None:
    """It may be a private server: that of PUBLIC_URL is one that may be asked. A page is no rendition."""
    one = cast("Any", SimpleNamespace(record_id=6666, stem="6666_720P"))
    with serving(status=status, body=body) as server:
        teacher.settings = teacher.settings.model_copy(update={"public_url": f"{server.url}/up/"})
        url = f"{server.url}/up/6666/6666_720P.flv"
        assert await transcoding.output_there(teacher, one) == (url if is_there else None)
        assert (await transcoding.is_there(teacher, url) is False) is is_gone
    teacher.settings = teacher.settings.model_copy(update={"public_url": None})
    assert await transcoding.output_there(teacher, one) is None


async def test_what_was_decided_is_begun_and_the_waiting_lists_say_so(teacher: TeacherHost) -> None:
    """A run asks the OSS for all renditions; on our own servers, one makes all of a record."""
    now, begun = time.time(), list[NewRun]()
    teacher.background = cast("Any", SimpleNamespace(begin=lambda _, run: begun.append(run)))
    plan, other = Changes(teacher.settings, now), Changes(teacher.settings, now)
    for record, size, backend in ((1, P720, Backend.OSS), (2, P720, Backend.ECS), (2, P240, Backend.ECS)):
        plan.begun.append(Attempt(record, size, 1, 1, now, backend, now + 60, "http://origin.example/1.flv"))
    plan.fell_back_to_ecs.append((3, P720))
    plan.joins["1_720P"].append("c-1")
    plan.leaves.append(("2_720P", "c-2"))
    other.begun += [Attempt(one, P720, 1, 1, now, Backend.OSS, now + 60, "") for one in (4, 5)]
    other.ended += [(6, P720), (7, P720)]
    lists = {(6, P720): ["c-6", "c-7"], (7, P720): list[str]()}
    await transcoding.follow(teacher, [plan], lists)
    await transcoding.follow(teacher, [other], lists)
    assert [(run.name, run.tags) for run in begun] == [
        ("request 1 720P", ["record:1"]),
        ("transcode 3 720P", ["record:3"]),
        ("transcode 2 720P+240P", ["record:2"]),
        ("request 2 renditions", ["record:4", "record:5"]),
    ]
    bus = cast("Any", teacher.bus)
    bus.join_waiting.assert_awaited_once_with({"1_720P": ["c-1"]})
    bus.leave_waiting.assert_awaited_once_with("2_720P", "c-2")
    bus.drop_waiting.assert_awaited_once_with({"6_720P": 2})


overdue = partial(begin, in_s=-1, requested=True)
"""Renditions that the OSS was asked for, and that are not there after their time."""


@pytest.fixture
def alone(teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch) -> TeacherHost:
    """A teacher that tells nobody how a transcoding goes on."""
    monkeypatch.setattr(transcoding, "follow", unsent)
    return teacher


async def test_a_deadline_that_has_passed_waits_for_results_that_are_not_read_yet_but_not_for_long(
    alone: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = AsyncMock()
    monkeypatch.setattr(transcoding, "follow", followed)
    commit(alone.engine, overdue, KEY)
    comes(alone, strategies.result())
    for late_s, state in ((0, "transcoding"), (transcoding.RESULTS_FIRST_S, "timed out")):
        commit(alone.engine, Connection.execute, update(videos).values(deadline=time.time() - late_s - 1))
        await transcoding.time_out(alone, dry_run=True)
        assert commit(alone.engine, transcodings.states, [KEY])[KEY].state == "transcoding"
        followed.assert_not_called()
        await transcoding.time_out(alone)
        assert commit(alone.engine, transcodings.states, [KEY])[KEY].state == state
    assert followed.call_count == 1


async def test_of_very_many_outputs_some_are_looked_for(alone: TeacherHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage that is slow to answer would take all sockets of the process, and each rendition is settled still."""
    keys = [(number, P720) for number in range(1, 401)]
    commit(alone.engine, overdue, *keys)
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
    assert most == transcoding.LOOKS < len(keys)
    states = commit(alone.engine, transcodings.states, keys).values()
    assert {one.state for one in states} == {RenditionState.TIMED_OUT}


async def test_a_result_that_comes_while_its_output_is_looked_for_goes_before_its_deadline(
    alone: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its class would be refused, although its rendition is made."""
    commit(alone.engine, overdue, KEY)

    async def absent(*_: object) -> None:
        comes(alone, strategies.result(record_id=KEY[0]))

    monkeypatch.setattr(transcoding, "output_there", absent)
    await transcoding.time_out(alone)
    assert news(alone) == []
    assert commit(alone.engine, transcodings.states, [KEY])[KEY].state is RenditionState.TRANSCODING
