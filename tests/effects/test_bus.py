"""What is sent by the bus: all of it, in its order, also behind what Redis refuses."""

from typing import Any, cast

import pytest
import redis

from lectern.db.outbox import Rest, Unsent
from lectern.errors import TryAgain
from lectern.model.views import StreamerStatus
from lectern.redis import pubsub
from lectern.redis.client import Bus
from lectern.redis.pubsub import SEND_AT_ONCE, Sent
from lectern.wire.outgoing import OutgoingKind
from tests.effects.redis_servers import url_of


async def send(client: redis.Redis, messages: list[Unsent], *, within_s: float | None = None) -> Sent:
    """Send *messages*; with *within_s*, up to so many seconds after now."""
    bus = Bus.open(url_of(client))
    try:
        return await bus.send(messages, None if within_s is None else await bus.now() + within_s)
    finally:
        await bus.close()


def bodies(client: redis.Redis, stream: str) -> list[str]:
    found: Any = client.xrange(stream)
    return [fields[b"body"].decode() for _, fields in found]


async def test_what_is_published_is_kept_on_a_stream_too_and_a_streams_message_only_there(client: redis.Redis) -> None:
    with client.pubsub(ignore_subscribe_messages=True) as heard:  # type: ignore[no-untyped-call]
        heard.subscribe("answers", "streamer1")
        heard.get_message(timeout=5)
        odd = 'a "quote", a \\, a %s, ünï\nand a new line'
        await send(
            client,
            [Unsent(1, "answers", OutgoingKind.CHANNEL, odd), Unsent(2, "streamer1", OutgoingKind.STREAM, "prepare")],
        )
        found = [one for one in (heard.get_message(timeout=0.5) for _ in range(4)) if one]
    assert [(one["channel"], one["data"].decode()) for one in found] == [(b"answers", odd)]
    assert bodies(client, "answers") == [odd]
    assert bodies(client, "streamer1") == ["prepare"]


async def test_a_key_that_is_no_stream_is_told_and_holds_up_none_of_the_others(client: redis.Redis) -> None:
    client.set("answers", "somebody's")
    sent = await send(
        client, [Unsent(1, "answers", OutgoingKind.CHANNEL, "a"), Unsent(2, "streamer1", OutgoingKind.STREAM, "b")]
    )
    assert [(one.index, one.rest) for one in sent.refused] == [(0, Rest.ADD)]
    assert "WRONGTYPE" in sent.refused[0].why
    assert (sent.number, sent.broke) == (2, None)
    assert bodies(client, "streamer1") == ["b"]
    assert client.get("answers") == b"somebody's"


async def test_a_key_that_the_user_may_not_use_is_told_and_holds_up_none_of_the_others(client: redis.Redis) -> None:
    """Also not itself as a channel: the platform listens there, whether or not the stream of the same name is kept."""
    client.acl_setuser("sender", enabled=True, passwords=["+p"], commands=["+@all"], keys=["answers"], channels=["*"])
    url = url_of(client).replace("redis://", "redis://sender:p@")
    messages = [Unsent(1, "answers", OutgoingKind.CHANNEL, "a"), Unsent(2, "alarm", OutgoingKind.CHANNEL, "b")]
    messages += [Unsent(3, "streamer1", OutgoingKind.STREAM, "c"), Unsent(4, "answers", OutgoingKind.CHANNEL, "d")]
    try:
        with client.pubsub(ignore_subscribe_messages=True) as heard:  # type: ignore[no-untyped-call]
            heard.subscribe("alarm")
            heard.get_message(timeout=5)
            bus = Bus.open(url)
            sent = await bus.send(messages)
            await bus.close()
            found = [one for one in (heard.get_message(timeout=0.5) for _ in range(2)) if one]
    finally:
        client.acl_deluser("sender")
    assert (sent.number, sent.broke) == (4, None)
    assert [(one.index, one.rest) for one in sent.refused] == [(1, Rest.ADD), (2, Rest.ADD)]
    assert "permission" in sent.refused[0].why
    assert bodies(client, "answers") == ["a", "d"]
    assert [one["data"] for one in found] == [b"b"]


async def test_each_refused_message_is_named_by_its_place_across_round_trips(client: redis.Redis) -> None:
    client.set("taken", "somebody's")
    targets = ["taken" if number % 500 == 7 else "answers" for number in range(2 * SEND_AT_ONCE)]
    sent = await send(client, [Unsent(i, name, OutgoingKind.STREAM, str(i)) for i, name in enumerate(targets)])
    assert [one.index for one in sent.refused] == [7, 507, 1007, 1507]
    assert len(bodies(client, "answers")) == 2 * SEND_AT_ONCE - 4


async def test_a_stream_that_takes_messages_again_gets_none_before_those_that_it_refused(client: redis.Redis) -> None:
    """Also in the next round trip: a grant would overtake the releases before it, and two streamers air one class."""
    client.set("streamer:a", "no stream")

    class Mended:
        """A Redis whose trouble ends after the first round trip."""

        def __init__(self, bus: Bus) -> None:
            self.client = bus._client

        async def eval(self, *arguments: Any) -> Any:
            found = await self.client.eval(*arguments)
            client.delete("streamer:a")
            return found

    bus = Bus.open(url_of(client))
    messages = [Unsent(number, "streamer:a", OutgoingKind.STREAM, str(number)) for number in range(SEND_AT_ONCE + 1)]
    messages.append(Unsent(len(messages), "streamer:b", OutgoingKind.STREAM, "other"))
    sent = await pubsub.send(cast("Any", Mended(bus)), messages)
    await bus.close()
    assert (sent.number, sent.broke) == (len(messages), None)
    assert sorted(one.index for one in sent.refused) == list(range(SEND_AT_ONCE + 1))
    assert (bodies(client, "streamer:a"), bodies(client, "streamer:b")) == ([], ["other"])


async def test_what_is_done_of_a_message_is_not_done_again(client: redis.Redis) -> None:
    with client.pubsub(ignore_subscribe_messages=True) as heard:  # type: ignore[no-untyped-call]
        heard.subscribe("answers")
        heard.get_message(timeout=5)
        half = [
            Unsent(1, "answers", OutgoingKind.CHANNEL, "a", Rest.ADD),
            Unsent(2, "answers", OutgoingKind.CHANNEL, "b", Rest.PUBLISH),
        ]
        await send(client, half)
        found = [one for one in (heard.get_message(timeout=0.5) for _ in range(4)) if one]
    assert [one["data"] for one in found] == [b"b"]
    assert bodies(client, "answers") == ["a"]


async def test_what_comes_after_its_time_is_neither_published_nor_kept(client: redis.Redis) -> None:
    """Its sender stood still, and another has sent it: the clock of Redis tells, whatever the sender's says."""
    with client.pubsub(ignore_subscribe_messages=True) as heard:  # type: ignore[no-untyped-call]
        heard.subscribe("answers")
        heard.get_message(timeout=5)
        sent = await send(client, [Unsent(1, "answers", OutgoingKind.CHANNEL, "a")], within_s=-0.01)
        assert heard.get_message(timeout=0.5) is None
    assert (sent.number, sent.broke, sent.late) == (0, None, True)
    assert client.keys() == []
    sent = await send(client, [Unsent(1, "answers", OutgoingKind.CHANNEL, "a")], within_s=30)
    assert (sent.number, sent.broke, sent.late) == (1, None, False)
    assert bodies(client, "answers") == ["a"]


async def test_a_copy_of_redis_publishes_to_nobody(client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", "1")
    try:
        with client.pubsub(ignore_subscribe_messages=True) as heard:  # type: ignore[no-untyped-call]
            heard.subscribe("answers")
            heard.get_message(timeout=5)
            sent = await send(client, [Unsent(1, "answers", OutgoingKind.CHANNEL, "a")])
            assert heard.get_message(timeout=0.5) is None
    finally:
        client.replicaof("NO", "ONE")
    assert (sent.number, sent.refused) == (0, [])
    assert sent.broke is not None


async def test_an_alarm_that_only_its_stream_refuses_was_sent_and_is_not_sent_again(client: redis.Redis) -> None:
    """The database takes nothing while it is sent, so nobody would remember that it was published."""
    client.set("alarm", "somebody's")
    bus = Bus.open(url_of(client))
    try:
        with client.pubsub(ignore_subscribe_messages=True) as heard:  # type: ignore[no-untyped-call]
            heard.subscribe("alarm")
            heard.get_message(timeout=5)
            await bus.publish_alarm("alarm", "the disk is full")
            found = [one for one in (heard.get_message(timeout=0.5) for _ in range(2)) if one]
        assert [one["data"] for one in found] == [b"the disk is full"]
        client.replicaof("127.0.0.1", "1")  # publishes to nobody
        with pytest.raises(TryAgain):
            await bus.publish_alarm("alarm", "the disk is full")
    finally:
        client.replicaof("NO", "ONE")
        await bus.close()


async def test_a_full_redis_keeps_leases_and_locks(client: redis.Redis) -> None:
    """Others' data have filled it: it refuses messages, but no class on air ends for that, and hosts can start."""
    bus = Bus.open(url_of(client))
    claim = {"session": "second", "lease_s": 45}
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(redis.OutOfMemoryError):
            client.hset("streamers", "streamer1", "{}")
        assert await bus.beat("streamers", "streamer1", "first", {}, {**claim, "session": "first"}) is None
        _, _, claims = await bus.heard("streamers")
        assert claims["streamer1"]["session"] == "first"
        await bus.grant("streamers", "streamer1", "first")
        found = await bus.beat("streamers", "streamer1", "first", {"on_air": 1}, claim)
        assert isinstance(found, dict)
        assert found["streamer1"]["on_air"] == 1
        assert (await bus.heard("streamers"))[2] == {}, "what was granted is claimed no more"
        await bus.part("streamers", "streamer1")
        assert (await bus.heard("streamers"))[1]["streamer1"]["gone"]
        await bus.say("streamers", "streamer1", StreamerStatus(0, {}, {}, [], due=3))
        assert (await bus.words("streamers", 60))["streamer1"].due == 3
        assert not await bus.take("streamers", "streamer1", 60), "it was heard of a moment ago"
        assert await bus.take("streamers", "streamer1", -1)
        assert await bus.beat("streamers", "streamer1", "first", {}, claim) == "-first", "a lease that was taken"
        await bus.grant("streamers", "streamer1", "second")
        assert await bus.beat("streamers", "streamer1", "first", {}, claim) == "second"
        client.delete("streamers:lease")
        assert await bus.beat("streamers", "streamer1", "first", {}, claim) is None, "a Redis that lost its data"
        assert await bus.hold("lock", "we", 30)
        assert await bus.hold("lock", "we", 30), "it is held on"
        assert not await bus.hold("lock", "others", 30)
    finally:
        client.config_set("maxmemory", "0")
        await bus.close()


async def test_a_session_that_has_lost_its_classes_is_never_granted_again(client: redis.Redis) -> None:
    """A streamer that reads of an old grant would go on with what was moved meanwhile."""
    bus, claim = Bus.open(url_of(client)), {"session": "second", "lease_s": 45}
    assert await bus.beat("streamers", "streamer1", "first", {}, claim) is None
    await bus.grant("streamers", "streamer1", "second")
    assert await bus.take("streamers", "streamer1", -1)
    assert (await bus.heard("streamers"))[2] == {}, "its claim went with the lease"
    assert await bus.beat("streamers", "streamer1", "first", {}, claim) == "-second"
    assert (await bus.heard("streamers"))[2] == {}, "it is not claimed again"
    await bus.grant("streamers", "streamer1", "second")
    assert await bus.beat("streamers", "streamer1", "second", {}, claim) == "-second", "nor granted"
    await bus.beat("streamers", "streamer1", "first", {}, {**claim, "session": "third"})
    await bus.grant("streamers", "streamer1", "third")
    assert isinstance(await bus.beat("streamers", "streamer1", "third", {}, claim), dict)
    await bus.close()
