"""What is decided together, or while something else waits, is decided as if one came after the other."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest
from sqlalchemy import Connection, select

from flows import artifacts, handling
from flows import host as hall
from flows.host import StreamerHost, TeacherHost
from flows.streamer import broadcast
from flows.teacher import bookings as teacher_bookings
from lectern import errors
from lectern.db import airings, bookings, inbox, transcodings
from lectern.db.engine import transaction
from lectern.model.facts import Airing
from lectern.model.plan import Changes
from lectern.model.tables.teacher import orders
from lectern.states import AiringState, Resolution
from lectern.wire.messages import Booking, Change, Report
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
    commit(teacher.engine, rows.begin, at_1080, attempt=3, requested=True)
    first = Change(class_id="c-1", record_id=7777, video_url="http://origin.example/7777.flv")
    found = decided(
        teacher, teacher_bookings.decided_changes, first, Change(class_id="c-1", video_resolution=Resolution.P1080)
    )
    assert [one.stem for one in found.begun] == ["7777_720P"]
    assert states(teacher) == {"c-1": "placed", "c-1^1": "waiting", "c-1^2": "waiting"}
    found_now = commit(teacher.engine, transcodings.states, [at_1080, at_720])
    assert {key: one.attempt for key, one in found_now.items()} == {at_1080: 3, at_720: 1}


def test_a_second_airing_is_changed_back_behind_the_change_that_only_its_streamer_had_room_for(
    teacher: TeacherHost,
) -> None:
    """Its number counts on from those that the database has."""
    listed = {"720P": "http://origin.example/6666_720P.flv"}
    backup = "rtmp://backup.example/live/c-1"
    booking = hosts.booking("c-1", push_url_backup=backup, video_url_list=listed)
    decided(teacher, teacher_bookings.decided_bookings, booking)
    decided(teacher, teacher_bookings.decided_changes, Change(class_id="c-1", end_time=booking.end_time + 900))

    def reports(cmd: Literal["prepared", "amended"], class_id: str, code: int = 0) -> None:
        name = commit(teacher.engine, bookings.by_id, [class_id])[class_id].streamer or ""
        its: dict[str, Any] = {"class_id": class_id, "streamer": name, "code": code, "of_placement": 1}
        came = rows.came(teacher, Report(cmd=cmd, result="fail" if code else "success", **its))
        taken = [handling.came(one, (Report,)) for one in came]
        go = partial(teacher_bookings.decided_reports, hosts.ALIVE)
        commit(teacher.engine, handling.change, teacher, partial(handling.of_messages, taken, go))

    for class_id in ("c-1", "c-1~backup", "c-1~backup^1"):
        reports("prepared", class_id)
    reports("amended", "c-1~backup^1")
    reports("prepared", "c-1^1", errors.DISK_FULL.number)
    first, second = {"c-1": "ready", "c-1^1": "refused"}, {"c-1~backup": "ready", "c-1~backup^1": "cancelled"}
    assert states(teacher) == first | second | {"c-1~backup^2": "placed"}


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

    monkeypatch.setattr(teacher_bookings, "follow", rows.unsent)
    monkeypatch.setattr(artifacts, "table", rows.unsent)
    teacher.membership_cache = time.monotonic() + 3600, tuple(hosts.ALIVE)
    hall.current.set(teacher)
    await teacher_bookings.change.fn(inbox.format_id_ranges(ids[1:]))
    assert left(teacher, ids) == ids, "the booking of c-2 may come by the other way"
    monkeypatch.setattr(teacher_bookings, "BOOKING_S", 0.0)
    await teacher_bookings.change.fn(inbox.format_id_ranges(ids[1:]))
    assert left(teacher, ids) == ids[:2], "nobody has booked c-2"
    decided(teacher, teacher_bookings.decided_bookings, order)
    commit(teacher.engine, inbox.done, ids[:1], time.time(), {})
    await teacher_bookings.change.fn(inbox.format_id_ranges(ids[1:2]))
    assert left(teacher, ids) == []
    assert commit(teacher.engine, bookings.by_id, ["c-1"])["c-1"].end_time == end


def left(host: TeacherHost, ids: list[int]) -> list[int]:
    return sorted(commit(host.engine, inbox.unhandled, ids))


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


@pytest.mark.parametrize(("by_person", "state"), [(False, AiringState.ON_AIR), (True, AiringState.CANCELLED)])
async def test_a_class_is_cancelled_by_nobody_but_a_person(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, *, by_person: bool, state: AiringState
) -> None:
    """A process that dies of an error cancels all its tasks, too: its classes are the next process's."""
    runs = SimpleNamespace(draining=lambda: False, was_cancelled=lambda run_id: by_person and run_id == RUN)
    streamer.runs, streamer.bus = cast("Any", runs), cast("Any", Quiet())
    wanted = rows.prepare("c-1", 6666, hosts.now(), placement=1)
    commit(streamer.engine, rows.add, wanted, AiringState.ON_AIR, "/videos/6666/6666.flv", hosts.now())
    one, begun = look(streamer.engine, airings.by_id, ["c-1"])["c-1"], asyncio.Event()

    async def forever(*_: object) -> Airing:
        streamer.playout.watches["c-1"].run_id = RUN
        begun.set()
        await asyncio.sleep(60)
        return one

    monkeypatch.setattr(broadcast, "_watched", forever)
    watching = asyncio.create_task(broadcast.watch(streamer, one))
    await begun.wait()
    await cancelled(watching)
    assert look(streamer.engine, airings.by_id, ["c-1"])["c-1"].state is state
