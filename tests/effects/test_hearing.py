"""What is heard of Redis: a subscription that is dead without an error is noticed, one bad stream spoils no other."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import AsyncMock

import pytest
import redis
from redis.exceptions import NoPermissionError

from lectern.redis import key_patterns, streams
from lectern.redis.client import Bus
from lectern.redis.streams import Streams
from lectern.settings import TeacherSettings
from tests.effects.redis_servers import opened, paused, port_of, url_of
from tests.stage import Gate
from tests.waiting import async_wait_until, cancelled


@asynccontextmanager
async def through(client: redis.Redis) -> AsyncIterator[tuple[Bus, Gate]]:
    """A bus that reaches Redis by way of a proxy that can swallow."""
    proxy = Gate(port_of(client))
    await proxy.start()
    try:
        async with opened(f"redis://127.0.0.1:{proxy.port}/0") as bus:
            bus.hearing.beat_s, bus.hearing.deaf_after_s = 0.3, 1.5
            yield bus, proxy
    finally:
        await proxy.stop()


async def subscription(messages: AsyncIterator[tuple[str, str] | None]) -> None:
    """Wait until Redis has taken it: until something is heard of it, or a second is over."""
    for _ in range(3):
        assert await anext(messages) is None


def subscriptions(client: redis.Redis) -> int:
    """How many subscriptions to the channel Redis has; one whose connection was swallowed is still there."""
    ((_, number),) = client.pubsub_numsub("order")
    return int(number)


async def first(messages: AsyncIterator[tuple[str, str] | None]) -> tuple[str, str]:
    async for one in messages:
        if one is not None:
            return one
    raise AssertionError("the subscription ended")


async def test_a_subscription_whose_connection_carries_nothing_any_more_is_made_anew(client: redis.Redis) -> None:
    async with through(client) as (bus, proxy), bus.hearing.subscribed(["order"]) as messages, asyncio.timeout(20):
        await subscription(messages)
        client.publish("order", "one")
        assert await first(messages) == ("order", "one")
        proxy.swallow()
        async for one in messages:
            assert one is None
            if subscriptions(client) == 2:
                break
        client.publish("order", "two")
        assert await first(messages) == ("order", "two"), "over a new connection"


SENT = sorted(["before", *map(str, range(9)), "same", "same", *(f"after {number}" for number in range(20))])
HANGS = [pytest.param(one, marks=[pytest.mark.night, pytest.mark.timeout(120)]) for one in (5, 10, 15, 20, 25, 30) * 3]


@pytest.mark.parametrize("length_s", [3.0, *HANGS])
async def test_nothing_is_lost_of_a_redis_that_hung_and_nothing_is_heard_twice(
    client: redis.Redis, bus: Bus, length_s: float
) -> None:
    """A hung Redis executes what was published meanwhile when it goes on: the old subscription is still there."""
    if length_s < 5:  # the longer ones have the times of the product
        bus.hearing.beat_s, bus.hearing.deaf_after_s = 0.3, 1.0
    heard: list[str] = []
    sending: list[asyncio.Task[Any]] = []

    def publish(text: str) -> None:
        with redis.Redis(port=port_of(client), socket_timeout=120) as own:
            own.publish("order", text)

    async def listen() -> None:
        async with bus.hearing.subscribed(["order"]) as messages:
            async for one in messages:
                if one is not None:
                    heard.append(one[1])  # noqa: PERF401 (what was heard counts although it is cancelled)

    async def say(text: str) -> None:
        sending.append(asyncio.create_task(asyncio.to_thread(publish, text)))
        await asyncio.sleep(length_s / 10)

    listening = asyncio.create_task(listen())
    await async_wait_until(lambda: subscriptions(client) == 1, description="Redis has the subscription")
    await say("before")
    with paused(client):
        for text in (*map(str, range(9)), "same"):
            await say(text)
        sending.append(asyncio.create_task(asyncio.to_thread(publish, "same")))
        await asyncio.sleep(0.2)
    await asyncio.gather(*sending)
    for number in range(20):
        await asyncio.to_thread(publish, f"after {number}")
        await asyncio.sleep(bus.hearing.beat_s / 5)
    await async_wait_until(lambda: len(heard) >= len(SENT), description="all is heard")
    await asyncio.sleep(1.5)  # whatever comes twice comes now
    await cancelled(listening)
    assert sorted(heard) == SENT


async def test_a_subscription_that_hears_is_left_alone_and_says_when_it_heard(client: redis.Redis) -> None:
    async with through(client) as (bus, _), bus.hearing.subscribed(["order"]) as messages, asyncio.timeout(20):
        await subscription(messages)
        bus.hearing.deaf_after_s = 3.0  # ten beats
        began, since = client.pubsub_channels("lectern:heard:*"), [bus.hearing.sent_since]
        async for one in messages:
            assert one is None, "its own beat is nobody's message"
            if bus.hearing.sent_since != since[-1]:
                since.append(bus.hearing.sent_since)
            if len(since) > 12:
                break
        times = [at for at in since if at is not None]
        assert times == sorted(times)
        assert set(client.pubsub_channels("lectern:heard:*")) <= set(began), "it is made anew"


async def test_a_beat_that_is_heard_before_its_answer_comes_is_not_missed(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer comes over another connection. Counted as missed, it would make a subscription deaf too early."""
    publish, heard = bus._client.publish, asyncio.Event()

    async def published(*given: Any) -> Any:
        number = await publish(*given)
        await heard.wait()
        return number

    async with bus.hearing.subscribed(["order"]) as messages, asyncio.timeout(20):
        monkeypatch.setattr(bus._client, "publish", published)
        began = bus.hearing.sent_since
        while bus.hearing.sent_since == began:
            assert await anext(messages) is None
        heard.set()
        await asyncio.sleep(0.1)
        assert bus.hearing._unheard == 0


async def test_who_did_not_listen_or_stood_still_hears_what_came_meanwhile(client: redis.Redis) -> None:
    """A full inbox holds up the reader, or a machine sleeps: what waits in the connection is not thrown away."""
    async with through(client) as (bus, _), bus.hearing.subscribed(["order"]) as messages, asyncio.timeout(20):
        await subscription(messages)
        for number in range(3):
            client.publish("order", str(number))
        await asyncio.sleep(4)  # longer than a beat, in which nobody reads
        assert [(await first(messages))[1] for _ in range(3)] == ["0", "1", "2"]
        bus.hearing.deaf_after_s = 3.0
        coming = asyncio.ensure_future(first(messages))
        await asyncio.sleep(0.1)
        published_at = time.time()
        client.publish("order", "one")
        time.sleep(bus.hearing.deaf_after_s + 1)  # noqa: ASYNC251 (nothing of this process goes on)
        assert await coming == ("order", "one")
        assert bus.hearing.sent_since is not None
        assert published_at - 3 < bus.hearing.sent_since <= published_at, "it is not taken for sent when it was read"


async def test_a_user_who_may_not_use_the_private_channel_is_heard_all_the_same(client: redis.Redis) -> None:
    """Who is given the right later is checked from the next connection on."""
    given: dict[str, Any] = {"enabled": True, "passwords": "+pw", "keys": "*", "commands": ["+@all"]}
    client.acl_setuser("plain", **given, channels=["order"])
    async with opened(url_of(client).replace("//", "//plain:pw@")) as bus:
        bus.hearing.beat_s, bus.hearing.deaf_after_s = 0.3, 1.0
        for is_checked in (False, True):
            async with bus.hearing.subscribed(["order"]) as messages, asyncio.timeout(20):
                await subscription(messages)
                client.publish("order", "one")
                assert await first(messages) == ("order", "one")
                assert (bus.hearing.sent_since is not None) is is_checked
            client.acl_setuser("plain", **given, channels=["order", "lectern:*"])


async def test_connections_are_kept_alive_by_the_kernel(bus: Bus) -> None:
    pool: Any = bus._client.connection_pool
    connection = await pool.get_connection()
    held = connection._writer.get_extra_info("socket")
    assert held.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert held.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
    await pool.release(connection)


@pytest.mark.parametrize("after_s", [0.0, 0.002, 0.01, 0.03])
async def test_a_cancel_ends_a_reader_whenever_it_comes(bus: Bus, after_s: float) -> None:
    async def read() -> None:
        streams = bus.streams(["order", "cancel"], "teacher")
        while True:
            await streams.next(count=10, block_ms=5)

    async def listen() -> None:
        async with bus.hearing.subscribed(["order"]) as messages:
            async for _ in messages:
                pass

    for number in range(20):
        for work in (read, listen):
            task = asyncio.create_task(work())
            await asyncio.sleep(after_s + number / 5000)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=30)
            assert done, f"{work.__name__}: a cancel after {after_s} s was lost"


@asynccontextmanager
async def reading(client: redis.Redis, *names: str) -> AsyncIterator[Streams]:
    async with opened(url_of(client)) as bus:
        yield bus.streams(names, "teacher")


async def all_bodies(streams: Streams) -> list[str]:
    found: list[str] = []
    for _ in range(4):
        came = await streams.next(count=10, block_ms=10)
        await streams.acknowledge(came) if came else None
        found += [one.body for one in came]
    return found


async def test_a_key_of_a_wrong_type_is_named_and_the_other_streams_are_read(client: redis.Redis) -> None:
    """Also one that is spoilt later."""
    client.set("order", "the old program's")
    client.xadd("streamer_report", {"body": "a report"})
    async with reading(client, "order", "cancel", "streamer_report") as streams:
        assert await all_bodies(streams) == ["a report"]
        name, why = streams.refused.popitem()
        assert (name, "WRONGTYPE" in why, streams.refused) == ("order", True, {}), "it is named once for each look"
        client.delete("cancel")
        client.set("cancel", "somebody's")
        client.xadd("streamer_report", {"body": "another"})
        assert await all_bodies(streams) == ["another"]
        assert set(streams.refused) == {"order", "cancel"}


async def test_what_was_read_and_not_acknowledged_comes_first_after_a_start(client: redis.Redis) -> None:
    """A Redis that has forgotten the groups gets them again."""
    client.xadd("order", {"body": "old"})
    async with reading(client, "order", "cancel") as streams:
        read = [one.body for _ in range(4) for one in await streams.next(count=10, block_ms=10)]
        assert read == ["old"]
    client.xadd("order", {"body": "new"})
    async with reading(client, "order", "cancel") as streams:
        assert await all_bodies(streams) == ["old", "new"]
        client.flushall()
        client.xadd("order", {"body": "a booking"})
        assert await all_bodies(streams) == ["a booking"]
        assert streams.refused == {}


async def test_without_memory_what_is_there_is_still_read(client: redis.Redis) -> None:
    async with reading(client, "order") as streams:
        await all_bodies(streams)
        client.xadd("order", {"body": "a booking"})
    client.config_set("maxmemory", 1)
    try:
        async with reading(client, "order", "cancel") as streams:
            assert await all_bodies(streams) == ["a booking"]
            assert list(streams.refused) == ["cancel"], "it had no group yet, and Redis has no room for it"
    finally:
        client.config_set("maxmemory", 0)


async def test_one_unreadable_beat_or_claim_is_that_streamers_trouble_alone(client: redis.Redis, bus: Bus) -> None:
    odd: dict[Any, Any] = {"a": "no JSON", "b": "[]", "c": '{"gone": true}', "d": '{"at": true}', "e": '{"at": 1e999}'}
    client.hset("streamers", mapping={**odd, "no name": '{"at": 1.5}', "well": '{"at": 1.5, "version": "2"}'})
    odd = {"a": "{", "b": '{"session": 1, "lease_s": 45}', "c": '{"session": "s", "lease_s": null}'}
    odd |= {"d": '{"session": "no name", "lease_s": 45}', "well": '{"session": "s", "lease_s": 45}'}
    client.hset("streamers:claims", mapping=odd)
    _, beats, claims = await bus.heard("streamers")
    assert beats == {"well": {"at": 1.5, "version": "2"}}
    assert claims == {"well": {"session": "s", "lease_s": 45}}
    assert await bus.alive("streamers", 1e12) == {"well": {"at": 1.5, "version": "2"}}
    assert not await bus.take("streamers", "a", 60), "nobody knows when it was heard last"
    client.hset("streamers:lease", "kept since", "1.5")
    assert await bus.take("streamers", "a", 60)
    assert await bus.take("streamers", "c", 60)


async def test_keys_of_a_wrong_type_are_named_before_anybody_needs_them(client: redis.Redis, bus: Bus) -> None:
    settings = TeacherSettings.load(_env_file=None, transcode_sign_key="made-up")
    for key in ("order_result", "streamers:words"):
        client.set(key, "somebody's")
    client.xadd("order", {"body": "a booking"})
    client.hset("streamers", "streamer1", "{}")
    status, answers = await key_patterns.type_faults(bus, settings)
    assert "the key streamers:words is a string, but must be a hash" in status
    assert "the key order_result is a string, but must be a stream" in answers


async def test_what_a_dead_consumer_read_is_taken_over_and_it_is_forgotten_if_nothing_is_its_own(
    client: redis.Redis, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new name of a teacher would stay in the group for ever; one that left entries is needed to find them."""
    for name in ("LOOK_FOR_LEFT_S", "TRIM_EVERY_S"):
        monkeypatch.setattr(streams, name, 0.0)
    dead, left, living = (bus.streams(["order"], name, shared=True) for name in ("a", "b", "c"))
    for one in (dead, left, living):
        assert await one.next(count=9, block_ms=10) == []  # nothing is left of an earlier life
    client.xadd("order", {"body": "one"})
    assert [one.body for one in await dead.next(count=9, block_ms=100)] == ["one"]
    assert await living.next(count=9, block_ms=100) == [], "the other one may be at work on it"
    with monkeypatch.context() as later:
        later.setattr(streams, "LEFT_S", 0.2)
        await asyncio.sleep(0.3)
        (taken,) = await living.next(count=9, block_ms=100)
    assert taken.body == "one"
    await living.acknowledge([taken])
    pending: Any = client.xpending("order", "lectern")
    assert pending["pending"] == 0
    client.xadd("order", {"body": "two"})
    assert await left.next(count=9, block_ms=100) != []
    monkeypatch.setattr(streams, "GONE_S", 0.2)
    await asyncio.sleep(0.3)
    await living.next(count=9, block_ms=10)
    await living.trim()
    consumers: Any = client.xinfo_consumers("order", "lectern")
    assert sorted(one["name"] for one in consumers) == [b"b", b"c"]


async def test_what_a_host_has_read_under_another_name_and_did_not_acknowledge_is_read_anew(
    client: redis.Redis, bus: Bus
) -> None:
    """A teacher that could not write it, its disk was full, and that was set up elsewhere: no other reads its streams.

    The booking was answered by nobody, and no stream was trimmed any more.
    """
    before, now = (bus.streams(["order"], name) for name in ("a", "b"))
    assert await before.next(count=9, block_ms=10) == []
    client.xadd("order", {"body": "one"})
    assert len(await before.next(count=9, block_ms=100)) == 1
    (left,) = await now.next(count=9, block_ms=10)
    assert left.body == "one"
    await now.acknowledge([left])
    assert await now.next(count=9, block_ms=10) == []
    pending: Any = client.xpending("order", "lectern")
    assert pending["pending"] == 0


async def test_of_what_a_dead_consumer_read_somebody_hears_although_it_was_trimmed_meanwhile(
    client: redis.Redis, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it asked for is lost: it becomes a dead letter, as on a host that reads it anew after its own death."""
    monkeypatch.setattr(streams, "LOOK_FOR_LEFT_S", 0.0)
    dead, living = (bus.streams(["order"], name, shared=True) for name in ("a", "b"))
    for one in (dead, living):
        assert await one.next(count=9, block_ms=10) == []
    client.xadd("order", {"body": "one"})
    assert await dead.next(count=9, block_ms=100) != []
    client.xtrim("order", maxlen=0, approximate=False)
    monkeypatch.setattr(streams, "LEFT_S", 0.0)
    (lost,) = await living.next(count=9, block_ms=100)
    assert lost.body == ""
    await living.acknowledge([lost])
    assert await living.next(count=9, block_ms=10) == []


async def test_what_redis_6_has_taken_over_without_a_name_because_it_was_trimmed_is_heard_of_too(
    client: redis.Redis, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stayed pending for ever, and the stream was trimmed only up to it."""
    monkeypatch.setattr(streams, "LOOK_FOR_LEFT_S", 0.0)
    living = bus.streams(["order"], "b", shared=True)
    assert await living.next(count=9, block_ms=10) == []
    client.xadd("order", {"body": "one"})
    client.xreadgroup("lectern", "b", {"order": ">"})
    client.xtrim("order", maxlen=0, approximate=False)
    monkeypatch.setattr(living.client, "xautoclaim", AsyncMock(return_value=["0-0", [(None, None)]]))
    async with asyncio.timeout(20):
        (lost,) = await living.next(count=9, block_ms=100)
    assert lost.body == ""
    await living.acknowledge([lost])
    pending: Any = client.xpending("order", "lectern")
    assert pending["pending"] == 0


async def test_a_stream_that_may_not_be_trimmed_is_named_and_the_others_are(
    client: redis.Redis, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reader ended of it each minute, those behind it were never trimmed, and nobody was told."""
    monkeypatch.setattr(streams, "TRIM_EVERY_S", 0.0)
    both = bus.streams(["cancel", "order"], "a")
    assert await both.next(count=5, block_ms=10) == []
    for name in both.names:
        client.xadd(name, {"body": "one"})
        client.xadd(name, {"body": "two"})
    await both.acknowledge(await both.next(count=9, block_ms=100))
    trim = both.client.xtrim

    async def trimmed(name: str, **given: Any) -> Any:
        if name == "cancel":
            raise NoPermissionError("this user has no permissions to run the 'xtrim' command")
        return await trim(name, **given)

    monkeypatch.setattr(both.client, "xtrim", trimmed)
    assert await both.trim() == 1
    assert list(both.refused) == ["cancel"]


async def test_what_all_groups_acknowledged_is_trimmed(
    client: redis.Redis, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group of somebody else's, which has read less, keeps what it has not read."""
    monkeypatch.setattr(streams, "TRIM_EVERY_S", 0.0)
    ours = bus.streams(["order"], "a")
    assert await ours.next(count=5, block_ms=10) == []
    for number in range(10):
        client.xadd("order", {"body": str(number)})
    read = await ours.next(count=5, block_ms=100)
    await ours.acknowledge([one for one in read if one.body != "3"])
    assert await ours.trim() == 3
    await ours.acknowledge(read)
    client.xgroup_create("order", "theirs", id="0")
    assert await ours.trim() == 0
    client.xgroup_destroy("order", "theirs")
    assert await ours.trim() == 1
    assert client.xlen("order") == 6
