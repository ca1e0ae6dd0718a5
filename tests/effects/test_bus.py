"""What is sent by the bus: all of it, in its order, also behind what Redis refuses."""

import json
from typing import Any

import pytest
import redis
from redis.exceptions import ResponseError

from lectern.effects.bus import SEND_AT_ONCE, Bus
from lectern.effects.outbox import Kind, Unsent
from tests.effects.redis_servers import url_of

pytestmark = pytest.mark.asyncio


async def send(client: redis.Redis, messages: list[Unsent]) -> None:
    bus = Bus.open(url_of(client))
    try:
        await bus.send(messages)
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
        await send(client, [Unsent(1, "answers", Kind.CHANNEL, odd), Unsent(2, "streamer1", Kind.STREAM, "prepare")])
        found = [one for one in (heard.get_message(timeout=0.5) for _ in range(4)) if one]
    assert [(one["channel"], one["data"].decode()) for one in found] == [(b"answers", odd)]
    assert bodies(client, "answers") == [odd]
    assert bodies(client, "streamer1") == ["prepare"]


async def test_thousands_come_in_their_order(client: redis.Redis) -> None:
    wanted = [json.dumps({"number": number}) for number in range(2 * SEND_AT_ONCE + 7)]
    await send(client, [Unsent(number, "answers", Kind.CHANNEL, body) for number, body in enumerate(wanted)])
    assert bodies(client, "answers") == wanted


async def test_nothing_to_send_is_no_trouble(client: redis.Redis) -> None:
    await send(client, [])
    assert client.keys() == []


async def test_a_key_that_is_no_stream_is_told_and_holds_up_none_of_the_others(client: redis.Redis) -> None:
    """They were sent; that they are sent again with it, once somebody has mended the key, is the lesser evil."""
    client.set("answers", "somebody's")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await send(client, [Unsent(1, "answers", Kind.CHANNEL, "a"), Unsent(2, "streamer1", Kind.STREAM, "b")])
    assert bodies(client, "streamer1") == ["b"]
    assert client.get("answers") == b"somebody's"
