"""The last change of a class holds, also if an earlier one had to wait for its booking."""

import time
from typing import Any

import pytest
from sqlalchemy import select, update

from flows.host import TeacherHost, current
from flows.teacher import bookings as flow
from lectern.db import inbox
from lectern.db.inbox import ReceivedMessage
from lectern.model.tables.teacher import journal, orders
from lectern.wire.messages import Booking, Change
from tests.faults.hosts import ALIVE
from tests.rows import commit, look


async def test_a_change_that_waits_for_its_booking_undoes_no_later_one(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def alive(_: object) -> list[str]:
        return ALIVE

    async def nothing(*_: object) -> None:
        pass

    monkeypatch.setattr(flow, "alive_streamers", alive)
    monkeypatch.setattr(flow, "after", nothing)
    current.set(teacher)
    start = time.time() + 3600
    booked = Booking(
        cmd="order",
        class_id="c-1",
        record_id=1,
        video_resolution="720P",
        video_url="http://origin.example/1.flv",
        video_url_list={},
        start_time=start,
        end_time=start + 600,
        push_url="rtmp://push.example/live/c-1",
    )

    async def come(message: Any, at: float | None = None) -> int:
        commit(
            teacher.engine,
            inbox.keep,
            journal,
            [ReceivedMessage("channel:x", message.cmd, message.to_json())],
            time.time(),
        )
        return int(
            look(
                teacher.engine,
                lambda c: c.execute(
                    select(journal.inbox.c.id).order_by(journal.inbox.c.id.desc()).limit(1)
                ).scalar_one(),
            )
        )

    first = await come(Change(cmd="change", class_id="c-1", end_time=start + 700))
    await flow.change.fn(inbox_ids=str(first))  # waits for its booking
    await flow.booking.fn(inbox_ids=str(await come(booked)))
    await come(Change(cmd="change", class_id="c-1", end_time=start + 800))
    for _ in range(3):  # as the consumer claims what is due
        due = commit(
            teacher.engine, lambda c: inbox.claim(c, journal, ["change"], limit=9, lease_s=60, now=time.time())
        )
        if due:
            await flow.change.fn(inbox_ids=inbox.format_id_ranges([one.id for one in due]))
        commit(teacher.engine, lambda c: c.execute(update(journal.inbox).values(not_before=0)))
    end = look(teacher.engine, lambda c: c.execute(select(orders.c.end_time)).scalar_one())
    assert end - start == 800, "the last change holds"
