"""What is decided together, or while something else waits, is decided as if one came after the other."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from sqlalchemy import Connection, select

from flows import artifacts, handling
from flows import host as hall
from flows.host import StreamerHost, TeacherHost
from flows.streamer import broadcast
from flows.teacher import bookings as teacher_bookings
from flows.teacher.ecs.job import TranscodeJob
from lectern.db import airings, bookings, inbox, transcodings
from lectern.db.engine import transaction
from lectern.model.facts import Airing, Attempt
from lectern.model.plan import Changes
from lectern.model.tables.teacher import RenditionRow, orders
from lectern.states import AiringState, Backend, Resolution
from lectern.wire.messages import Booking, Change
from tests import rows
from tests.faults import hosts
from tests.faults.turns import Quiet
from tests.rows import commit, look
from tests.waiting import cancelled


def decided(host: TeacherHost, decide: Callable[..., object], *messages: Booking | Change) -> Changes:

    def go(connection: Connection, changes: Changes) -> None:
        decide(hosts.ALIVE, connection, changes, messages)

    return commit(host.engine, handling.change, host, go)


def states(host: TeacherHost) -> dict[str, str]:
    with transaction(host.engine) as connection:
        return {row.class_id: row.state for row in connection.execute(select(orders.c.class_id, orders.c.state))}


def test_a_second_change_in_a_batch_joins_the_transcoding_that_its_recording_has(teacher: TeacherHost) -> None:
    """The first names the recording, the second its resolution: only together they name a rendition that is made."""
    at_1080, at_720 = (7777, Resolution.P1080), (7777, Resolution.P720)
    decided(
        teacher,
        teacher_bookings.decided_bookings,
        hosts.booking("c-1", video_url_list={"720P": "http://origin.example/6666_720P.flv"}),
    )
    now = hosts.now()
    with transaction(teacher.engine) as connection:
        attempt = Attempt(*at_1080, 3, 3, now, Backend.OSS, now + 60, "http://origin.example/7777.flv")
        transcodings.begin(connection, [attempt], now)
        transcodings.requested(connection, at_1080, now)
    first = Change(class_id="c-1", record_id=7777, video_url="http://origin.example/7777.flv")
    found = decided(
        teacher, teacher_bookings.decided_changes, first, Change(class_id="c-1", video_resolution=Resolution.P1080)
    )
    assert [one.stem for one in found.begun] == ["7777_720P"]
    assert states(teacher) == {"c-1": "placed", "c-1^1": "waiting", "c-1^2": "waiting"}
    found_now = commit(teacher.engine, transcodings.states, [at_1080, at_720])
    assert {key: one.attempt for key, one in found_now.items()} == {at_1080: 3, at_720: 1}


async def test_a_change_waits_for_the_booking_of_its_class_that_is_in_the_inbox_or_may_come_soon(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others handle bookings, perhaps another teacher: the change would be answered with 404, and be lost.

    Channel and stream keep no order between them; a class that nobody books is answered after a while all the same.
    """
    order = hosts.booking("c-1")
    end = order.start_time + 900
    about = [Change(class_id="c-1", end_time=end), Change(class_id="c-2", end_time=end)]
    ids = [one.id for one in rows.came(teacher, order, *about)]

    async def nothing(*_: object) -> None:
        """Neither Redis nor Prefect is there."""

    monkeypatch.setattr(teacher_bookings, "follow", nothing)
    monkeypatch.setattr(artifacts, "table", nothing)
    teacher.membership_cache = time.monotonic() + 3600, tuple(hosts.ALIVE)
    hall.current.set(teacher)
    await teacher_bookings.change.fn(inbox.format_id_ranges(ids[1:]))
    assert left(teacher, ids) == ids, "the booking of c-2 may come by the other way"
    monkeypatch.setattr(teacher_bookings, "BOOKING_S", 0.0)
    await teacher_bookings.change.fn(inbox.format_id_ranges(ids[1:]))
    assert left(teacher, ids) == ids[:2], "nobody has booked c-2"
    decided(teacher, teacher_bookings.decided_bookings, order)
    commit(teacher.engine, inbox.done, teacher.journal, ids[:1], inbox.Handling(time.time()))
    await teacher_bookings.change.fn(inbox.format_id_ranges(ids[1:2]))
    assert left(teacher, ids) == []
    assert commit(teacher.engine, bookings.by_id, ["c-1"])["c-1"].end_time == end


def left(host: TeacherHost, ids: list[int]) -> list[int]:
    return sorted(commit(host.engine, inbox.unhandled, host.journal, ids))


def test_a_backup_stream_is_taken_while_its_class_or_change_waits(teacher: TeacherHost) -> None:
    """Its second airing is placed only later, and would then be pushed over another class."""
    backup = "rtmp://backup.example/live/c-1"
    decided(teacher, teacher_bookings.decided_bookings, hosts.booking("c-1", push_url_backup=backup))
    others = hosts.booking("c-2", push_url=backup), hosts.booking("c-3", push_url_backup=backup), hosts.booking("c-4")
    decided(teacher, teacher_bookings.decided_bookings, *others)
    assert states(teacher) == {"c-1": "waiting", "c-2": "refused", "c-3": "refused", "c-4": "waiting"}
    old, new = "rtmp://backup.example/live/old", "rtmp://backup.example/live/new"
    decided(teacher, teacher_bookings.decided_bookings, hosts.booking("c-5", push_url_backup=old))
    decided(teacher, teacher_bookings.decided_changes, Change(class_id="c-5", push_url_backup=new))
    decided(
        teacher,
        teacher_bookings.decided_bookings,
        hosts.booking("c-6", push_url=new),
        hosts.booking("c-7", push_url=old),
    )
    seen = states(teacher)
    assert [seen[class_id] for class_id in ("c-5", "c-6", "c-7")] == ["waiting", "refused", "waiting"]


RUN = "00000000-0000-0000-0000-000000000001"


class Runs:
    """Runs of a process that is not draining; it knows whether somebody cancelled."""

    def __init__(self, *, cancelled: bool) -> None:
        self._cancelled = cancelled

    def draining(self) -> bool:
        return False

    def was_cancelled(self, run_id: str) -> bool:
        return self._cancelled and run_id == RUN


async def cut(work: Any, begun: asyncio.Event) -> None:
    """Begin *work*, and cancel it in its middle, as the end of the loop does with every task."""
    task = asyncio.create_task(work)
    await begun.wait()
    await cancelled(task)


@pytest.mark.parametrize(("cancelled", "state"), [(False, AiringState.ON_AIR), (True, AiringState.CANCELLED)])
async def test_a_class_is_cancelled_by_nobody_but_a_person(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, *, cancelled: bool, state: AiringState
) -> None:
    """A process that dies of an error cancels all its tasks, too: its classes are the next process's."""
    streamer.runs, streamer.bus = cast("Any", Runs(cancelled=cancelled)), cast("Any", Quiet())
    wanted = rows.prepare("c-1", 6666, hosts.now(), placement=1)
    commit(streamer.engine, rows.add, wanted, AiringState.ON_AIR, "/videos/6666/6666.flv", hosts.now())
    one, begun = look(streamer.engine, airings.by_id, ["c-1"])["c-1"], asyncio.Event()

    async def forever(*_: object) -> Airing:
        streamer.playout.watches["c-1"].run_id = RUN
        begun.set()
        await asyncio.sleep(60)
        return one

    monkeypatch.setattr(broadcast, "_watched", forever)
    await cut(broadcast.watch(streamer, one), begun)
    assert look(streamer.engine, airings.by_id, ["c-1"])["c-1"].state is state


@pytest.mark.parametrize(("cancelled", "results"), [(False, 0), (True, 1)])
async def test_a_rendition_is_given_up_by_nobody_but_a_person(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch, *, cancelled: bool, results: int
) -> None:
    """Else its classes would be refused with 208, while the job goes on at the ECS host."""
    teacher.runs, teacher.bus = cast("Any", Runs(cancelled=cancelled)), cast("Any", Quiet())
    key = 6666, Resolution.P720
    with transaction(teacher.engine) as connection:
        attempt = Attempt(*key, 1, 1, hosts.now(), Backend.ECS, hosts.now() + 60, "http://origin.example/6666.flv")
        transcodings.begin(connection, [attempt], hosts.now())
        due = transcodings.take(connection, [key], RUN, 60, hosts.now())
    assert [type(one) for one in due] == [RenditionRow]
    begun = asyncio.Event()

    async def forever(_job: TranscodeJob) -> None:
        begun.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(TranscodeJob, "_climb", forever)
    await cut(TranscodeJob(teacher, due, RUN).run(), begun)
    assert sum("in the UI" in str(one) for one in rows.said(teacher)) == results
