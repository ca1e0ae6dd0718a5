"""What was committed is sent once, also beside what Redis refuses; that is tried again by itself, and alarmed."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import Connection, insert, select, update

from flows import outbox_publisher
from flows.host import TeacherHost
from flows.outbox_publisher import publish_outbox
from lectern.db import bookings, outbox
from lectern.db.engine import transaction
from lectern.decide.placement import answer_again
from lectern.errors import ENDED
from lectern.model.plan import Changes
from lectern.model.tables.teacher import journal, orders
from lectern.redis.client import Bus, Sent
from lectern.wire import outgoing
from lectern.wire.messages import Grant, Release
from lectern.wire.outgoing import Outgoing, OutgoingKind
from tests.effects.redis_servers import empty_redis, host_at, redis_of_a_module, url_of
from tests.rows import commit

__all__ = ["empty_redis", "redis_of_a_module"]

Heard = Callable[[], tuple[list[str], list[int]]]


class Away:
    """Stands for Redis that cannot be reached."""

    async def send(self, _: object) -> Sent:
        return Sent(broke=OSError("nobody is there"))

    async def now(self) -> float:
        await asyncio.Event().wait()
        return 0.0


@pytest.fixture
def heard(client: redis.Redis) -> Iterator[Heard]:
    """The classes that were answered, and the codes of the alarms, since the platform was last asked what it heard."""
    with client.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe("order_result", "alarm")
        for _ in range(2):
            pubsub.get_message(timeout=5)

        def since() -> tuple[list[str], list[int]]:
            came = list(iter(lambda: pubsub.get_message(timeout=0.3), None))
            answers, alarms = (
                [json.loads(one["data"]) for one in came if one["channel"] == name]
                for name in (b"order_result", b"alarm")
            )
            return [one["class_id"] for one in answers], [one["code"] for one in alarms]

        yield since


@pytest.fixture
async def teacher(client: redis.Redis, tmp_path: Path) -> AsyncIterator[TeacherHost]:
    async with host_at(client, tmp_path) as made:
        yield made
    client.config_set("maxmemory", 0)


def answer(class_id: str) -> Outgoing:
    return Outgoing("order_result", OutgoingKind.CHANNEL, outgoing.answer(class_id, 0, "prepared"), class_id)


def release(class_id: str, streamer: str = "streamer1") -> Outgoing:
    return Outgoing(f"streamer:{streamer}", OutgoingKind.STREAM, Release(class_id=class_id), class_id)


def put(teacher: TeacherHost, *messages: Outgoing) -> None:
    commit(teacher.engine, outbox.put, messages, time.time())


def unsent(connection: Connection) -> list[int]:
    """The messages that are not sent, as the next transaction sees it."""
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


@pytest.mark.parametrize(("ends_in_s", "heard_ago_s", "code"), [(-1, None, ENDED.number), (60, None, 0), (-1, 20, 0)])
async def test_no_success_that_waited_for_redis_leaves_after_the_end_of_its_class(
    client: redis.Redis, teacher: TeacherHost, ends_in_s: float, heard_ago_s: float | None, code: int
) -> None:
    """It is refused then, once; the booking that is delivered again is answered so, too. It may be heard elsewhere."""
    now = time.time()
    with transaction(teacher.engine) as connection:
        times = {"start_time": now - 60, "end_time": now + ends_in_s, "received_at": now - 90}
        row = {"class_id": "c-1", "state": "ready", "payload": "{}", "promised_at": now - 30, "updated_at": now}
        row["answered_at"] = heard_ago_s and now - heard_ago_s
        connection.execute(insert(orders).values(row | times))
        outbox.put(connection, [answer("c-1")], now - 30)
    bus, teacher.bus = teacher.bus, Away()  # type: ignore[assignment]
    assert not await publish_outbox(teacher)
    teacher.bus = bus
    await publish_outbox(teacher)
    assert [(one["class_id"], one["code"]) for one in bodies(client, "order_result")] == [("c-1", code)]
    order = (await teacher.read_tx(bookings.by_id, ["c-1"]))["c-1"]
    answer_again(again := Changes(teacher.settings, now), order)
    assert [one.message.code for one in again.sends] == [code]  # type: ignore[attr-defined]


def wrong_type(client: redis.Redis) -> None:
    client.set("order_result", "somebody's")


def no_memory(client: redis.Redis) -> None:
    client.config_set("maxmemory", 1)


def may_not_publish(client: redis.Redis) -> None:
    client.acl_setuser("writer", enabled=True, reset_channels=True, channels=["alarm"])


@pytest.mark.parametrize("spoil", [wrong_type, no_memory, may_not_publish])
async def test_of_what_redis_refuses_in_part_the_rest_is_done_once(
    client: redis.Redis, teacher: TeacherHost, heard: Heard, spoil: Callable[[redis.Redis], object]
) -> None:
    """An answer is published once though its stream takes nothing, and the other way round; so is the alarm of it."""
    client.acl_setuser("writer", enabled=True, passwords="+pw", keys="*", commands=["+@all"], channels="*")
    teacher.bus = Bus.open(url_of(client).replace("//", "//writer:pw@"))
    spoil(client)
    put(teacher, answer("c-1"))
    await publish(teacher, 3)
    assert heard() == (["c-1"] * (spoil is not may_not_publish), [505])
    client.config_set("maxmemory", 0)
    if spoil is wrong_type:
        client.delete("order_result")
    await publish(teacher, 2)
    assert bool(await teacher.write_tx(unsent)) is (spoil is may_not_publish)
    assert heard() == ([], [])
    assert [one["class_id"] for one in bodies(client, "order_result")] == ["c-1"]


async def test_the_others_of_the_batch_are_sent_once_and_what_is_refused_is_alarmed_once(
    client: redis.Redis, teacher: TeacherHost, heard: Heard
) -> None:
    client.set("streamer:streamer1", "somebody's")
    put(teacher, answer("c-1"), release("c-2"), answer("c-3"), release("c-4", "streamer2"))
    await publish(teacher, 3)
    assert heard() == (["c-1", "c-3"], [505])
    (alarm,) = bodies(client, "alarm")
    assert "streamer:streamer1" in alarm["message"]
    assert "WRONGTYPE" in alarm["message"]
    assert len(await teacher.write_tx(unsent)) == 1
    assert [one["class_id"] for one in bodies(client, "streamer:streamer2")] == ["c-4"]


async def test_thousands_that_are_refused_hold_up_nothing_newer(
    client: redis.Redis, teacher: TeacherHost, heard: Heard
) -> None:
    client.set("streamer:streamer1", "somebody's")
    put(teacher, *(release(f"old-{number}") for number in range(5_200)))
    await publish_outbox(teacher)
    for class_id in ("new", "newer"):
        put(teacher, answer(class_id))
        await publish_outbox(teacher)
        assert heard()[0] == [class_id]
        let_time_pass(teacher)
    assert len(await teacher.write_tx(unsent)) == 5_200


async def test_a_grant_never_overtakes_releases_refused_before(client: redis.Redis, teacher: TeacherHost) -> None:
    """Else a streamer would hold its lease, and push what was taken from it."""
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


async def test_the_note_that_a_message_was_sent_comes_with_the_next_commit_that_can_write_it(
    teacher: TeacherHost, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody sends it again meanwhile; one that cannot be written holds up no other commit."""
    put(teacher, answer("c-1"))
    await publish_outbox(teacher)
    assert await teacher.read_tx(unsent) == [1]
    with monkeypatch.context() as patch:
        patch.setattr(outbox, "sent", Mock(side_effect=LookupError("an error that nobody foresaw")))
        assert await teacher.write_tx(unsent) == [1]
        with pytest.raises(LookupError):
            await teacher.note()
    put(teacher, answer("c-2"))
    await publish_outbox(teacher)
    assert heard()[0] == ["c-1", "c-2"]
    assert await teacher.write_tx(unsent) == [1], "that of the second is written"
    await teacher.note()
    assert await teacher.read_tx(unsent) == []


async def test_without_another_commit_the_note_has_a_transaction_of_its_own(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = asyncio.Event()
    wrote, loop = teacher.acks.acknowledge, asyncio.get_running_loop()
    monkeypatch.setattr(teacher.acks, "acknowledge", lambda some: (wrote(some), loop.call_soon_threadsafe(written.set)))
    put(teacher, answer("c-1"))
    await publish_outbox(teacher)
    keeping = asyncio.create_task(teacher.keep_noting())
    async with asyncio.timeout(20):
        await written.wait()
    keeping.cancel()
    assert await teacher.read_tx(unsent) == []


async def test_a_teacher_that_redis_does_not_answer_gives_back_what_another_may_send(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within seconds; and it says that Redis is away."""
    monkeypatch.setattr(outbox_publisher, "ANSWERS_S", 0.05)
    shared = {"teacher_database_url": SecretStr("postgresql://of.both")}
    teacher.settings = teacher.settings.model_copy(update=shared)
    put(teacher, answer("c-1"))
    bus, teacher.bus = teacher.bus, Away()  # type: ignore[assignment]
    assert not await publish_outbox(teacher)
    teacher.bus = bus
    assert teacher.redis_away
    claimed = commit(teacher.engine, outbox.claim, "b", limit=9, now=time.time())
    assert [one.class_id for one in claimed] == ["c-1"]
