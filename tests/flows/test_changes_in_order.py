"""The last change of a class holds, also if an earlier one had to wait for its booking."""

import time
from typing import Any, cast

import pytest
from sqlalchemy import Connection, func, select, update

from flows.host import TeacherHost, current
from flows.teacher import bookings as flow
from flows.teacher import transcoding
from lectern.db import inbox
from lectern.db.inbox import ReceivedMessage
from lectern.db.writer import write
from lectern.model.plan import Changes
from lectern.model.tables.teacher import journal, orders
from lectern.states import BookingState
from lectern.wire.messages import Change, Report
from tests import strategies
from tests.faults.hosts import ALIVE
from tests.rows import came, claimed, commit, look


async def test_a_change_that_waits_for_its_booking_undoes_no_later_one(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def alive(_: object) -> list[str]:
        return ALIVE

    async def nothing(*_: object) -> None:
        pass

    monkeypatch.setattr(flow, "alive_streamers", alive)
    monkeypatch.setattr(flow, "follow", nothing)
    current.set(teacher)
    start = time.time() + 3600
    booked = strategies.booking(start_time=start, end_time=start + 600)

    def come(message: Any) -> str:
        arrived = [ReceivedMessage("channel:x", message.cmd, message.to_json())]
        commit(teacher.engine, inbox.keep, journal, arrived, time.time())
        return str(look(teacher.engine, Connection.execute, select(func.max(journal.inbox.c.id))).scalar_one())

    first = come(Change(cmd="change", class_id="c-1", end_time=start + 700))
    await flow.change.fn(inbox_ids=first)  # waits for its booking
    await flow.booking.fn(inbox_ids=come(booked))
    come(Change(cmd="change", class_id="c-1", end_time=start + 800))
    for _ in range(3):  # as the consumer claims what is due
        if due := claimed(teacher, "change"):
            await flow.change.fn(inbox_ids=inbox.format_id_ranges([one.id for one in due]))
        commit(teacher.engine, Connection.execute, update(journal.inbox).values(not_before=0))
    end = look(teacher.engine, Connection.execute, select(orders.c.end_time)).scalar_one()
    assert end - start == 800, "the last change holds"


class Lists:
    """The waiting lists in Redis."""

    def __init__(self) -> None:
        self.left: list[tuple[str, str]] = []

    async def leave_waiting(self, key: str, class_id: str) -> None:
        self.left.append((key, class_id))


async def test_a_change_that_holds_takes_the_one_before_it_off_its_waiting_list(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier one waited for a rendition that its class does not need any more."""

    async def alive(_: object) -> list[str]:
        return ALIVE

    async def told(_: object) -> bool:
        return True

    monkeypatch.setattr(flow, "alive_streamers", alive)
    monkeypatch.setattr(flow, "publish_outbox", told, raising=False)
    monkeypatch.setattr(transcoding, "publish_outbox", told)
    teacher.bus = lists = cast("Any", Lists())
    current.set(teacher)
    start = time.time() + 3600
    booked = strategies.booking(start_time=start, end_time=start + 600)
    changes = Changes(teacher.settings, time.time())
    for id_ in ("c-1", "c-1^2"):
        changes.place(changes.book(booked.under(id_)), ALIVE[0], "http://origin.example/6666.flv")
        changes.move(changes.orders[id_], BookingState.READY)
    changes.move(changes.book(booked.under("c-1^1")), BookingState.WAITING)
    changes.sends.clear()
    commit(teacher.engine, write, journal, changes)
    its: dict[str, Any] = {
        "class_id": "c-1^2",
        "streamer": ALIVE[0],
        "result": "success",
        "placement": 1,
        "of_placement": 1,
    }
    (report,) = came(teacher, Report(cmd="amended", **its))
    await flow.report.fn(str(report.id))
    assert lists.left == [("6666_720P", "c-1^1")]
