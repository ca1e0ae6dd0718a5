"""What comes over the bus is kept in the inbox, also beside a key of Redis that cannot be read."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest
import redis
from sqlalchemy import Connection, select
from sqlalchemy.exc import OperationalError

from flows.host import StreamerHost, TeacherHost, current
from flows.resident.consumer import BATCH_SIZE_BY_FAILURES, Consumer
from flows.teacher.bookings import booking
from lectern.db import airings, inbox
from lectern.db.inbox import ReceivedMessage
from lectern.model.facts import InboxMessage
from lectern.model.tables.teacher import journal
from tests import rows
from tests.effects.redis_servers import empty_redis, host_at, redis_of_a_module
from tests.faults.turns import Quiet
from tests.waiting import async_wait_until, cancelled

__all__ = ["empty_redis", "redis_of_a_module"]


async def test_a_key_of_a_wrong_type_keeps_no_other_stream_from_being_read(client: redis.Redis, tmp_path: Path) -> None:
    client.set("order", "the old program's")
    client.xadd("streamer_report", {"body": '{"cmd": "prepared"}'})
    async with host_at(client, tmp_path) as host:

        def sources() -> list[str]:
            return list(rows.look(host.engine, Connection.execute, select(journal.inbox.c.source)).scalars())

        intake = Consumer(host, cast("Any", None))
        work = asyncio.create_task(intake._read_streams())
        await async_wait_until(lambda: sources() and client.xlen("alarm"), description="it is kept and alarmed")
        await cancelled(work)
        assert sources() == ["stream:streamer_report"]
    ((_, fields),) = cast("Any", client.xrange("alarm"))
    alarm = json.loads(fields[b"body"])
    assert (alarm["code"], "order" in alarm["message"]) == (505, True)


class Slow:
    """A handler that handles each batch when the test lets it go."""

    def __init__(self, host: TeacherHost) -> None:
        self.host = host
        self.batches: list[list[int]] = []
        self.began: list[float] = []  # when the round began in which each was handed over
        self.go = asyncio.Event()

    async def handle(self, flow: str, kept: Sequence[InboxMessage]) -> None:
        self.batches.append(ids := [one.id for one in kept])
        self.began.append(self.host.watchdog._at[f"inbox, {flow}"])
        await self.go.wait()
        await self.host.write_tx(inbox.done, ids, 1.0, {})

    async def has(self, number: int) -> None:
        """Wait until this many batches have come."""
        await async_wait_until(lambda: len(self.batches) >= number, description=f"{number} batches have come")


@asynccontextmanager
async def dispatching(host: TeacherHost) -> AsyncIterator[tuple[Consumer, Slow]]:
    """An intake that hands bookings over, and who gets them."""
    slow = Slow(host)
    intake = Consumer(host, cast("Any", slow))
    work = asyncio.create_task(intake._dispatch("booking"))
    await async_wait_until(lambda: "booking" not in intake._left, description="it has looked for what was there before")
    try:
        yield intake, slow
    finally:
        work.cancel()
        await asyncio.wait({work}, timeout=5)


def orders(*class_ids: str) -> list[ReceivedMessage]:
    return [ReceivedMessage("channel:order", "order", f'{{"cmd": "order", "class_id": "{one}"}}') for one in class_ids]


async def test_what_comes_while_a_batch_is_at_work_is_handled_after_it_without_being_read_again(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with dispatching(teacher) as (intake, slow):
        await intake.commit(orders("c-1"))
        await slow.has(1)
        monkeypatch.setattr(inbox, "claim", Mock(return_value=[]))
        await intake.commit(orders("c-2"))
        await intake.commit(orders("c-3", "c-4"))
        slow.go.set()
        await slow.has(2)
        assert slow.batches == [[1], [2, 3, 4]]


async def test_a_loop_that_hands_over_one_batch_after_the_other_does_not_stand_still(teacher: TeacherHost) -> None:
    """Thousands of messages that failed on their own take minutes, one by one, in which health is well."""
    rows.commit(teacher.engine, inbox.keep, orders("c-1", "c-2", "c-3"), 1.0)
    for _ in BATCH_SIZE_BY_FAILURES:
        rows.commit(teacher.engine, inbox.failed, [1, 2, 3], 0.0)
    slow = Slow(teacher)
    slow.go.set()
    work = asyncio.create_task(Consumer(teacher, cast("Any", slow))._dispatch("booking"))
    await slow.has(3)
    await cancelled(work)
    assert slow.batches == [[1], [2], [3]]
    assert len(set(slow.began)) == 3


async def test_a_message_whose_lease_ended_while_it_waited_is_in_its_batch_once(teacher: TeacherHost) -> None:
    """Twice in one batch, a booking would be answered twice."""
    teacher.settings = teacher.settings.model_copy(update={"inbox_lease_s": 0.0})
    async with dispatching(teacher) as (intake, slow):
        await intake.commit(orders("c-1"))
        await slow.has(1)
        await intake.commit(orders("c-2"))
        intake._claimed_at["booking"] = 0.0  # it is time to look for others
        slow.go.set()
        await slow.has(2)
        assert [batch.count(2) for batch in slow.batches] == [0, 1]


async def test_what_waited_in_the_inbox_is_decided_before_what_has_come_since(teacher: TeacherHost) -> None:
    """Of two changes of a class the later one is to hold; the earlier may have waited for the booking of its class."""
    slow = Slow(teacher)
    intake = Consumer(teacher, cast("Any", slow))
    intake._left.clear()
    rows.commit(teacher.engine, inbox.keep, orders("c-1"), 1.0)
    await intake.commit(orders("c-2"))
    work = asyncio.create_task(intake._dispatch("booking"))
    await slow.has(1)
    slow.go.set()
    await cancelled(work)
    assert slow.batches == [[1, 2]]


async def test_what_was_claimed_is_handled_although_the_database_fails_when_it_is_searched_for_others(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a booking would be answered a minute later, when its lease ends."""
    slow = Slow(teacher)
    intake = Consumer(teacher, cast("Any", slow))
    intake._left.clear()
    await intake.commit(orders("c-1"))
    with monkeypatch.context() as patch:
        patch.setattr(inbox, "claim", Mock(side_effect=OperationalError("claim", {}, Exception("disk I/O error"))))
        with pytest.raises(OperationalError):
            await intake._dispatch("booking")
    work = asyncio.create_task(intake._dispatch("booking"))
    await slow.has(1)
    slow.go.set()
    work.cancel()
    await asyncio.wait({work}, timeout=5)
    assert slow.batches == [[1]]


@pytest.mark.parametrize(
    "body",
    [
        '{"class_id": "c-1", "start_time": 1}',
        '{"class_id": "c-1", "cmd": "book"}',
        '{"class_id": "c-1", "cmd": "lessons.orders.of.the.platform"}',
    ],
)
async def test_what_names_no_known_command_is_malformed_on_any_channel(teacher: TeacherHost, body: str) -> None:
    """The platform gets its 400, and no database finds the name of the channel too long for a command."""
    channel = "lessons.orders.of.the.platform"
    teacher.settings = teacher.settings.model_copy(update={"order_channel": channel})
    teacher.bus = cast("Any", Quiet())
    intake = Consumer(teacher, cast("Any", None))
    arrived = intake._arrived("channel", channel, body)
    assert len(arrived.command) <= journal.inbox.c.command.type.length  # type: ignore[attr-defined]  # a text's
    await intake.commit([arrived])
    current.set(teacher)
    await booking.fn("1")
    assert [(one["class_id"], one["code"]) for one in rows.said(teacher, "order_result")] == [("c-1", 400)]


async def test_rows_are_read_while_many_transactions_wait_to_write(streamer: StreamerHost) -> None:
    """What begins soon is read from the rows: it must not wait in the line of all that is written down."""
    rows.commit(streamer.engine, rows.bare, "c-1", time.time() + 600)
    goes_on = threading.Event()

    def waits(_: Connection) -> None:
        goes_on.wait(60)

    writing = [asyncio.create_task(streamer.write_tx(waits)) for _ in range(50)]
    try:
        async with asyncio.timeout(20):
            assert (await streamer.read_tx(airings.by_id, ["c-1"])).keys() == {"c-1"}
        assert not any(one.done() for one in writing)
    finally:
        goes_on.set()
        await asyncio.gather(*writing)
