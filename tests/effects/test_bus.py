"""What is sent by the bus: all of it, in its order, also behind what Redis refuses."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from lectern.db.outbox import Rest, Unsent
from lectern.errors import TryAgain
from lectern.model.views import StreamerStatus
from lectern.redis.client import SEND_AT_ONCE, Bus
from lectern.wire.outgoing import OutgoingKind
from tests.effects.redis_servers import opened, redis_server, url_of


def bodies(client: redis.Redis, stream: str) -> list[str]:
    found: Any = client.xrange(stream)
    return [fields[b"body"].decode() for _, fields in found]


@contextmanager
def listening(client: redis.Redis, *channels: str) -> Iterator[Callable[[], list[str]]]:
    """Listens to *channels*; the function gives what was published there meanwhile."""
    with client.pubsub(ignore_subscribe_messages=True) as heard:  # type: ignore[no-untyped-call]
        heard.subscribe(*channels)
        for _ in channels:
            heard.get_message(timeout=5)
        yield lambda: [one["data"].decode() for one in (heard.get_message(timeout=0.3) for _ in range(3)) if one]


def to(target: str, *texts: str, kind: OutgoingKind = OutgoingKind.CHANNEL) -> list[Unsent]:
    """Messages to *target*, numbered from 1."""
    return [Unsent(number, target, kind, text) for number, text in enumerate(texts, 1)]


async def test_what_is_published_is_kept_on_a_stream_too_and_a_streams_message_only_there(
    client: redis.Redis, bus: Bus
) -> None:
    """What is done of a message is not done again."""
    odd = 'a "quote", a \\, a %s, ünï\nand a new line'
    with listening(client, "answers", "streamer1") as heard:
        await bus.send([*to("answers", odd), *to("streamer1", "prepare", kind=OutgoingKind.STREAM)])
        assert heard() == [odd]
        rests = {"a": Rest.ADD, "b": Rest.PUBLISH}
        await bus.send([Unsent(1, "answers", OutgoingKind.CHANNEL, text, rest) for text, rest in rests.items()])
        assert heard() == ["b"]
    assert (bodies(client, "answers"), bodies(client, "streamer1")) == ([odd, "a"], ["prepare"])


async def test_a_key_that_takes_nothing_is_told_and_holds_up_none_of_the_others(client: redis.Redis, bus: Bus) -> None:
    """Also not itself as a channel: the platform listens there, whether or not the stream of the same name is kept.

    Each refused message is named by its place across round trips.
    """
    client.acl_setuser("sender", enabled=True, passwords=["+p"], commands=["+@all"], keys=["answers"], channels=["*"])
    messages = [*to("answers", "a"), *to("alarm", "b"), *to("streamer1", "c", kind=OutgoingKind.STREAM)]
    async with opened(url_of(client).replace("redis://", "redis://sender:p@")) as its_bus:
        with listening(client, "alarm") as heard:
            sent = await its_bus.send([*messages, *to("answers", "d")])
            assert heard() == ["b"]
    client.acl_deluser("sender")
    assert (sent.number, sent.broke) == (4, None)
    refused = [(one.message.body, one.rest, "permission" in one.why) for one in sent.refused]
    assert refused == [("b", Rest.ADD, True), ("c", Rest.ADD, True)]
    assert bodies(client, "answers") == ["a", "d"]
    client.set("taken", "somebody's")
    targets = ["taken" if number % 500 == 7 else "answers" for number in range(2 * SEND_AT_ONCE)]
    sent = await bus.send([Unsent(i, name, OutgoingKind.STREAM, str(i)) for i, name in enumerate(targets)])
    assert [one.message.id for one in sent.refused] == [7, 507, 1007, 1507]
    assert {(one.rest, one.why[:9]) for one in sent.refused} == {(Rest.ADD, "WRONGTYPE")}
    assert (sent.number, sent.broke, client.get("taken")) == (len(targets), None, b"somebody's")
    assert len(bodies(client, "answers")) == 2 + 2 * SEND_AT_ONCE - 4


async def test_a_stream_that_takes_messages_again_gets_none_before_those_that_it_refused(
    client: redis.Redis, bus: Bus
) -> None:
    """Also in the next round trip: a grant would overtake the releases before it, and two streamers air one class."""
    client.set("streamer:a", "no stream")

    class Mended:
        """A Redis whose trouble ends after the first round trip."""

        async def eval(self, *arguments: Any) -> Any:
            found = await cast("Any", bus._client).eval(*arguments)
            client.delete("streamer:a")
            return found

    messages = to("streamer:a", *map(str, range(SEND_AT_ONCE + 1)), kind=OutgoingKind.STREAM)
    messages += to("streamer:b", "other", kind=OutgoingKind.STREAM)
    sent = await Bus(cast("Any", Mended())).send(messages)
    assert (sent.number, sent.broke) == (len(messages), None)
    assert [one.message for one in sent.refused] == messages[: SEND_AT_ONCE + 1]
    assert (bodies(client, "streamer:a"), bodies(client, "streamer:b")) == ([], ["other"])


async def test_what_comes_after_its_time_is_neither_published_nor_kept(client: redis.Redis, bus: Bus) -> None:
    """Its sender stood still, and another has sent it: the clock of Redis tells, whatever the sender's says."""
    with listening(client, "answers") as heard:
        sent = await bus.send(to("answers", "a"), await bus.now() - 0.01)
        assert heard() == []
    assert (sent.number, sent.broke, sent.late, client.keys()) == (0, None, True, [])
    sent = await bus.send(to("answers", "a"), await bus.now() + 30)
    assert (sent.number, sent.broke, sent.late) == (1, None, False)
    assert bodies(client, "answers") == ["a"]


async def test_an_alarm_that_only_its_stream_refuses_was_sent_and_is_not_sent_again(
    client: redis.Redis, bus: Bus
) -> None:
    """The database takes nothing while it is sent, so nobody would remember that it was published."""
    client.set("alarm", "somebody's")
    with listening(client, "alarm") as heard:
        await bus.publish_alarm("alarm", "the disk is full")
        assert heard() == ["the disk is full"]
    client.replicaof("127.0.0.1", "1")
    try:
        with listening(client, "answers") as heard:
            with pytest.raises(TryAgain):
                await bus.publish_alarm("alarm", "the disk is full")
            sent = await bus.send(to("answers", "a"))
            assert heard() == [], "a copy of another Redis publishes to nobody"
    finally:
        client.replicaof("NO", "ONE")
    assert (sent.number, sent.refused, sent.broke is None) == (0, [], False)


CLAIM = {"session": "second", "lease_s": 45}
"""What a streamer asks for with each heartbeat."""


async def test_a_full_redis_keeps_leases_and_locks(client: redis.Redis, bus: Bus) -> None:
    """Others' data have filled it: it refuses messages, but no class on air ends for that, and hosts can start."""
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(redis.OutOfMemoryError):
            client.hset("streamers", "streamer1", "{}")
        assert await bus.beat("streamers", "streamer1", "first", {}, {**CLAIM, "session": "first"}) is None
        assert (await bus.heard("streamers"))[2]["streamer1"]["session"] == "first"
        await bus.grant("streamers", "streamer1", "first")
        found = await bus.beat("streamers", "streamer1", "first", {"on_air": 1}, CLAIM)
        assert isinstance(found, dict)
        assert found["streamer1"]["on_air"] == 1
        assert (await bus.heard("streamers"))[2] == {}, "what was granted is claimed no more"
        await bus.part("streamers", "streamer1")
        assert (await bus.heard("streamers"))[1]["streamer1"]["gone"]
        await bus.say("streamers", "streamer1", StreamerStatus(0, {}, {}, [], due=3))
        assert (await bus.words("streamers", 60))["streamer1"].due == 3
        assert not await bus.take("streamers", "streamer1", 60), "it was heard of a moment ago"
        assert await bus.take("streamers", "streamer1", -1)
        assert await bus.beat("streamers", "streamer1", "first", {}, CLAIM) == "-first", "a lease that was taken"
        await bus.grant("streamers", "streamer1", "second")
        assert await bus.beat("streamers", "streamer1", "first", {}, CLAIM) == "second"
        client.delete("streamers:lease")
        assert await bus.beat("streamers", "streamer1", "first", {}, CLAIM) is None, "a Redis that lost its data"
        assert await bus.kept_since("streamers") == await bus.kept_since("streamers")
        held = [await bus.hold("lock", who, 30) for who in ("we", "we", "others")]
        assert held == [None, None, "we"], "it is held on"
    finally:
        client.config_set("maxmemory", "0")


async def test_a_lease_is_not_taken_before_redis_has_kept_all_heartbeats_for_as_long(
    client: redis.Redis, bus: Bus
) -> None:
    """A heartbeat that it lost may have renewed the lease a moment before."""
    assert not await bus.take("streamers", "streamer1", 60), "nobody has noted since when it keeps them"
    since = await bus.kept_since("streamers")
    assert await bus.kept_since("streamers") == since
    assert float(since) == pytest.approx(await bus.now(), abs=10)
    assert not await bus.take("streamers", "streamer1", 60)
    client.hset("streamers:lease", "kept since", float(since) - 61)
    assert await bus.take("streamers", "streamer1", 60)
    client.flushall()
    assert not await bus.take("streamers", "streamer1", 60)
    assert await bus.kept_since("streamers") not in {since, str(float(since) - 61)}
    assert await bus.take("streamers", "streamer1", -1), "a person has made sure that it is off"


async def test_a_redis_that_was_started_again_is_asked_for_the_lease_and_not_for_a_silence(tmp_path: Path) -> None:
    """What it read from its disk is older than what it said last: the streamer has beaten since."""
    with redis_server(tmp_path) as client:
        async with opened(url_of(client)) as bus:
            since, now = await bus.kept_since("streamers"), await bus.now()
            await bus.grant("streamers", "streamer1", "first")
        client.hset("streamers", "streamer1", json.dumps({"at": now - 61}))
        client.hset("streamers:lease", "kept since", now - 3600)
        client.save()
    with redis_server(tmp_path) as client:
        async with opened(url_of(client)) as bus:
            assert not await bus.take("streamers", "streamer1", 60)
            assert float(await bus.kept_since("streamers")) >= float(since)
            assert not await bus.take("streamers", "streamer1", 60)
            assert isinstance(await bus.beat("streamers", "streamer1", "first", {}, CLAIM), dict)
            client.hset("streamers", "streamer1", json.dumps({"at": now - 61}))
            client.hset("streamers:lease", "kept since", now - 3600)
            assert await bus.take("streamers", "streamer1", 60), "it has kept all since"


async def test_a_session_that_has_lost_its_classes_is_never_granted_again(bus: Bus) -> None:
    """A streamer that reads of an old grant would go on with what was moved meanwhile."""
    assert await bus.beat("streamers", "streamer1", "first", {}, CLAIM) is None
    await bus.grant("streamers", "streamer1", "second")
    assert await bus.take("streamers", "streamer1", -1)
    assert (await bus.heard("streamers"))[2] == {}, "its claim went with the lease"
    assert await bus.beat("streamers", "streamer1", "first", {}, CLAIM) == "-second"
    assert await bus.lease_of("streamers", "streamer1") == "-second"
    assert (await bus.heard("streamers"))[2] == {}, "it is not claimed again"
    await bus.grant("streamers", "streamer1", "second")
    assert await bus.beat("streamers", "streamer1", "second", {}, CLAIM) == "-second", "nor granted"
    await bus.beat("streamers", "streamer1", "first", {}, {**CLAIM, "session": "third"})
    await bus.grant("streamers", "streamer1", "third")
    assert isinstance(await bus.beat("streamers", "streamer1", "third", {}, CLAIM), dict)
    assert [await bus.lease_of("streamers", name) for name in ("streamer1", "streamer2")] == ["third", None]


async def test_of_a_session_that_never_beat_it_is_said_so_unless_the_lease_was_taken(
    client: redis.Redis, bus: Bus
) -> None:
    """Redis had lost the lease, and the process that was granted it anew died before it read of that."""

    async def beat(session: str) -> object:
        return await bus.beat("streamers", "streamer1", session, {}, CLAIM)

    await bus.grant("streamers", "streamer1", "first")
    assert isinstance(await beat("first"), dict)
    client.delete("streamers:lease")
    await bus.grant("streamers", "streamer1", "unread")
    assert (await beat("first"), await beat("of a restored database")) == ("+unread", "unread")
    assert isinstance(await beat("unread"), dict)
    assert await beat("first") == "unread", "it was first's no more"
    assert await bus.take("streamers", "streamer1", -1)
    await bus.grant("streamers", "streamer1", "second")
    assert await beat("unread") == "second", "its classes may have been moved"
    client.flushall()
    await bus.grant("streamers", "streamer1", "second")
    assert await beat("unread") == "+second"
    client.hset("streamers", "streamer1", "{")
    assert await beat("unread") == "second"
