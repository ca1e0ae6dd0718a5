"""What was committed is sent once, also beside what Redis refuses; that is tried again by itself, and alarmed."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Connection, insert, select, update

from flows.host import TeacherHost
from flows.outbox_publisher import publish_outbox
from lectern.db import bookings, outbox
from lectern.db.engine import transaction
from lectern.decide.placement import answer_again
from lectern.errors import CONFLICT, ENDED
from lectern.model.plan import Changes
from lectern.model.tables.teacher import journal, orders
from lectern.redis.client import Bus
from lectern.redis.pubsub import Sent
from lectern.wire import outgoing
from lectern.wire.messages import Grant, Release
from lectern.wire.outgoing import Outgoing, OutgoingKind
from tests.effects.redis_servers import empty_redis, host_at, redis_of_a_module, url_of
from tests.rows import commit

__all__ = ["empty_redis", "redis_of_a_module"]


class Ear:
    """What a platform hears on its channels."""

    def __init__(self, client: redis.Redis, *channels: str) -> None:
        self._pubsub = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._pubsub.subscribe(*channels)
        for _ in channels:
            self._pubsub.get_message(timeout=5)

    def heard(self) -> list[tuple[str, dict[str, Any]]]:
        """Channel and message of all that came since it was last asked."""
        found = []
        while one := self._pubsub.get_message(timeout=0.3):
            if one["type"] == "message":
                found.append((one["channel"].decode(), json.loads(one["data"])))
        return found

    def classes(self, channel: str = "order_result") -> list[str]:
        """The class_ids of the answers that came since it was last asked."""
        return [body["class_id"] for name, body in self.heard() if name == channel]


class Away:
    """Stands for Redis that cannot be reached."""

    async def send(self, _: object) -> Sent:
        return Sent(broke=OSError("nobody is there"))


@pytest.fixture
def ear(client: redis.Redis) -> Iterator[Ear]:
    client.config_set("maxmemory", 0)
    found = Ear(client, "order_result", "alarm")
    yield found
    client.config_set("maxmemory", 0)
    found._pubsub.close()


@pytest.fixture
async def teacher(client: redis.Redis, tmp_path: Path) -> AsyncIterator[TeacherHost]:
    async with host_at(client, tmp_path) as made:
        yield made


def answer(class_id: str) -> Outgoing:
    return Outgoing("order_result", OutgoingKind.CHANNEL, outgoing.answer(class_id, 0, "prepared"), class_id)


def release(class_id: str, streamer: str = "streamer1") -> Outgoing:
    return Outgoing(f"streamer:{streamer}", OutgoingKind.STREAM, Release(class_id=class_id), class_id)


def put(teacher: TeacherHost, *messages: Outgoing) -> None:
    commit(teacher.engine, outbox.put, journal, messages, time.time())


async def unsent(teacher: TeacherHost) -> int:
    """The number of messages that are not sent, as the next transaction sees it."""
    return len(await teacher.write_tx(unsent_rows))


def unsent_rows(connection: Connection) -> list[int]:
    return list(connection.execute(select(journal.outbox.c.id).where(journal.outbox.c.sent_at.is_(None))).scalars())


def let_time_pass(teacher: TeacherHost) -> None:
    """What waits for its next try is due."""
    commit(teacher.engine, Connection.execute, update(journal.outbox).values(not_before=0))


async def publish(teacher: TeacherHost, times: int) -> None:
    """Send what is due so often, with its time between."""
    for _ in range(times):
        await publish_outbox(teacher)
        let_time_pass(teacher)


def bodies(client: redis.Redis, stream: str) -> list[dict[str, Any]]:
    found: Any = client.xrange(stream)
    return [json.loads(fields[b"body"]) for _, fields in found]


def wrong_type(client: redis.Redis) -> None:
    client.set("order_result", "somebody's")


def no_memory(client: redis.Redis) -> None:
    client.config_set("maxmemory", 1)


@pytest.mark.parametrize(("ends_in_s", "code"), [(-1, ENDED.number), (60, 0)])
async def test_no_success_that_waited_for_redis_leaves_after_the_end_of_its_class(
    client: redis.Redis, teacher: TeacherHost, ear: Ear, ends_in_s: float, code: int
) -> None:
    """It is refused then, once; the booking that is delivered again is answered so, too."""
    now = time.time()
    with transaction(teacher.engine) as connection:
        times = {"start_time": now - 60, "end_time": now + ends_in_s, "received_at": now - 90}
        row = {"class_id": "c-1", "state": "ready", "payload": "{}", "promised_at": now - 30, "updated_at": now}
        connection.execute(insert(orders).values(row | times))
        outbox.put(connection, journal, [answer("c-1")], now - 30)
    bus, teacher.bus = teacher.bus, Away()  # type: ignore[assignment]
    assert not await publish_outbox(teacher)
    teacher.bus = bus
    await publish_outbox(teacher)
    assert [(one["class_id"], one["code"]) for _, one in ear.heard()] == [("c-1", code)]
    order = (await teacher.read_tx(bookings.by_id, ["c-1"]))["c-1"]
    answer_again(again := Changes(teacher.settings, now), order)
    assert [one.message.code for one in again.sends] == [code]  # type: ignore[attr-defined]


@pytest.mark.parametrize("spoil", [wrong_type, no_memory])
async def test_an_answer_is_published_once_though_its_stream_takes_nothing(
    client: redis.Redis, teacher: TeacherHost, ear: Ear, spoil: Callable[[redis.Redis], None]
) -> None:
    spoil(client)
    put(teacher, answer("c-1"))
    for _ in range(5):
        await publish_outbox(teacher)
    let_time_pass(teacher)
    await publish_outbox(teacher)
    assert ear.classes() == ["c-1"]
    client.config_set("maxmemory", 0)
    client.delete("order_result")
    let_time_pass(teacher)
    await publish_outbox(teacher)
    assert await unsent(teacher) == 0
    assert ear.classes() == []
    assert [one["class_id"] for one in bodies(client, "order_result")] == ["c-1"]


async def test_the_others_of_the_batch_are_sent_once_and_what_is_refused_is_alarmed_once(
    client: redis.Redis, teacher: TeacherHost, ear: Ear
) -> None:
    client.set("streamer:streamer1", "somebody's")
    put(teacher, answer("c-1"), release("c-2"), answer("c-3"), release("c-4", "streamer2"))
    await publish(teacher, 3)
    heard = ear.heard()
    assert [body["class_id"] for name, body in heard if name == "order_result"] == ["c-1", "c-3"]
    alarms = [body for name, body in heard if name == "alarm"]
    assert [body["code"] for body in alarms] == [505]
    assert "streamer:streamer1" in alarms[0]["message"]
    assert "WRONGTYPE" in alarms[0]["message"]
    assert await unsent(teacher) == 1
    assert [one["class_id"] for one in bodies(client, "streamer:streamer2")] == ["c-4"]


async def test_thousands_that_are_refused_hold_up_nothing_newer(
    client: redis.Redis, teacher: TeacherHost, ear: Ear
) -> None:
    client.set("streamer:streamer1", "somebody's")
    put(teacher, *(release(f"old-{number}") for number in range(5_200)))
    await publish_outbox(teacher)
    put(teacher, answer("new"))
    await publish_outbox(teacher)
    assert ear.classes() == ["new"]
    let_time_pass(teacher)
    put(teacher, answer("newer"))
    await publish_outbox(teacher)
    assert ear.classes() == ["newer"]
    assert await unsent(teacher) == 5_200


async def test_a_grant_never_overtakes_releases_refused_before(
    client: redis.Redis, teacher: TeacherHost, ear: Ear
) -> None:
    """Else a streamer would hold its lease, and push what was taken from it."""
    del ear
    no_memory(client)
    put(teacher, release("c-1"))
    await publish_outbox(teacher)
    client.config_set("maxmemory", 0)
    put(teacher, Outgoing("streamer:streamer1", OutgoingKind.STREAM, Grant(streamer="streamer1", session="s")))
    await publish_outbox(teacher)
    assert bodies(client, "streamer:streamer1") == []
    let_time_pass(teacher)
    await publish_outbox(teacher)
    assert [one["cmd"] for one in bodies(client, "streamer:streamer1")] == ["release", "grant"]


async def test_a_user_who_may_not_publish_is_told_of_and_the_stream_has_the_message_once(
    client: redis.Redis, teacher: TeacherHost, ear: Ear
) -> None:
    client.acl_setuser("writer", enabled=True, passwords="+pw", keys="*", commands=["+@all"], channels=["alarm"])
    teacher.bus = Bus.open(url_of(client).replace("//", "//writer:pw@"))
    put(teacher, answer("c-1"))
    await publish(teacher, 3)
    assert [body["code"] for name, body in ear.heard() if name == "alarm"] == [505]
    assert [one["class_id"] for one in bodies(client, "order_result")] == ["c-1"]


async def test_alarm_whose_stream_is_refused_is_published_once(
    client: redis.Redis, teacher: TeacherHost, ear: Ear
) -> None:
    client.set("alarm", "somebody's")
    cry = outgoing.alarm(CONFLICT, "c-1: booked twice", time.time(), "teacher", class_id="c-1")
    put(teacher, Outgoing("alarm", OutgoingKind.CHANNEL, cry))
    await publish(teacher, 4)
    assert [body["code"] for _, body in ear.heard()] == [CONFLICT.number, 505]


async def test_the_note_that_a_message_was_sent_comes_with_the_next_commit_and_nobody_sends_it_again(
    client: redis.Redis, teacher: TeacherHost, ear: Ear
) -> None:
    put(teacher, answer("c-1"))
    await publish_outbox(teacher)
    assert await teacher.read_tx(unsent_rows) == [1]
    put(teacher, answer("c-2"))
    await publish_outbox(teacher)
    assert ear.classes() == ["c-1", "c-2"]
    assert await teacher.write_tx(unsent_rows) == []


async def test_without_another_commit_the_note_has_a_transaction_of_its_own(
    client: redis.Redis, teacher: TeacherHost, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    del ear
    written = asyncio.Event()
    wrote, loop = teacher.acks.acknowledge, asyncio.get_running_loop()
    monkeypatch.setattr(teacher.acks, "acknowledge", lambda some: (wrote(some), loop.call_soon_threadsafe(written.set)))
    put(teacher, answer("c-1"))
    await publish_outbox(teacher)
    keeping = asyncio.create_task(teacher.keep_noting())
    async with asyncio.timeout(20):
        await written.wait()
    keeping.cancel()
    assert await teacher.read_tx(unsent_rows) == []


async def test_a_note_that_cannot_be_written_holds_up_no_other_commit_and_is_written_later(
    client: redis.Redis, teacher: TeacherHost, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(teacher, answer("c-1"))
    with monkeypatch.context() as patch:
        patch.setattr(outbox, "sent", odd)
        await publish_outbox(teacher)
        assert await teacher.write_tx(unsent_rows) == [1]
        with pytest.raises(LookupError):
            await teacher.note()
    await publish_outbox(teacher)
    assert ear.classes() == ["c-1"]
    await teacher.note()
    assert await teacher.read_tx(unsent_rows) == []


def odd(*_: object) -> None:
    raise LookupError("an error that nobody foresaw")
