"""The class platform: publishes bookings, reads answers and alarms, sees what was received."""

import asyncio
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import av
import redis.asyncio as redis

from town.recordings import Publish, read_publishes

CHANNELS = ("order_result", "alarm", "class_event", "cancel_result")


class Platform:
    """A listener and publisher on the documented channels."""

    def __init__(self, redis_url: str, received: Path) -> None:
        self._client = redis.Redis.from_url(redis_url, decode_responses=True)
        self._received = received
        self._listener: asyncio.Task[None] | None = None
        self.answers: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.alarms: list[dict[str, Any]] = []
        self.events: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.cancels: dict[str, dict[str, Any]] = {}  # the answer to the cancel of a class

    async def __aenter__(self) -> "Platform":
        """Listen before the first booking."""
        pubsub = self._client.pubsub(ignore_subscribe_messages=True)
        await pubsub.subscribe(*CHANNELS)
        self._listener = asyncio.create_task(self._listen(pubsub))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait({self._listener})
        await self._client.aclose()

    async def _listen(self, pubsub: Any) -> None:  # noqa: ANN401 (the library's own type)
        while True:
            try:
                found = await pubsub.get_message(timeout=1.0)
            except redis.RedisError:  # it is away; the subscription is made again with the next connection
                await asyncio.sleep(1.0)
                continue
            if found is None:
                continue
            message = {**json.loads(found["data"]), "received_at": time.time()}
            if found["channel"] == "alarm":
                self.alarms.append(message)
            elif found["channel"] == "class_event":
                self.events[message["class_id"]].append(message)
            elif found["channel"] == "cancel_result":
                self.cancels[message["class_id"]] = message
            else:
                self.answers[message["class_id"]].append(message)

    async def publish(self, channel: str, message: object) -> int:
        """Send one message; a text goes as it is. Returns how many heard it."""
        heard: int = await self._client.publish(channel, message if isinstance(message, str) else json.dumps(message))
        return heard

    async def add(self, stream: str, message: object) -> None:
        """Put one message on a stream, which keeps it until somebody reads it."""
        await self._client.xadd(stream, {"body": json.dumps(message)})

    async def dead_letters(self) -> list[dict[str, Any]]:
        """What could not be read."""
        found = await self._client.xrange("dead_letter") or []
        return [json.loads(fields["body"]) for _, fields in found if fields]

    def received(self, class_id: str) -> list[Publish]:
        """What the RTMP receiver took of a class, one entry a push."""
        return [one for one in read_publishes(self._received) if one.name == class_id]

    def file(self, publish: Publish) -> Path:
        """The recording of a push."""
        return self._received / publish.file


def seconds(publishes: list[Publish]) -> float:
    """How many seconds of pictures and sound were received."""
    spans = [
        (one.last_timestamp_ms - one.first_timestamp_ms) / 1000
        for one in publishes
        if one.first_timestamp_ms is not None and one.last_timestamp_ms is not None
    ]
    return round(sum(spans), 1)


def position_s(source: Path, received: Path) -> float | None:
    """Where in *source* a received push began, by its first picture with the very same bytes.

    The slate may come before it; then the push began as much earlier in *source* as the slate was sent.
    """
    known = {picture: at for at, picture in reversed(_key_frames(source))}
    pictures = _key_frames(received)
    return next((known[one] - (at - pictures[0][0]) for at, one in pictures if one in known), None)


def foreign_s(source: Path, received: Path) -> float | None:
    """Seconds of a received push before its first picture of *source*; None if there is none."""
    own = {picture for _, picture in _key_frames(source)}
    frames = _key_frames(received)
    return next((at - frames[0][0] for at, picture in frames if picture in own), None)


def _key_frames(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        return [
            (float(packet.pts * packet.time_base), bytes(packet))
            for packet in container.demux(container.streams.video[0])
            if packet.is_keyframe and packet.pts is not None and packet.time_base is not None
        ]
