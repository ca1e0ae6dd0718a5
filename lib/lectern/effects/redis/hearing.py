"""Hears what others send: a subscription that proves that it hears, and streams of which each is read for itself."""

import asyncio
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import redis.asyncio as redis
from redis.asyncio.client import PubSub
from redis.exceptions import NoPermissionError, ReadOnlyError, RedisError, ResponseError

from lectern.effects.rows import metrics

log = logging.getLogger("lectern")
GROUP = "lectern"
LOOK_AGAIN_S = 30.0
"""Seconds until a stream that cannot be read is tried again."""


class Deaf(redis.ConnectionError):
    """A subscription that does not hear what it publishes itself."""


@dataclass(frozen=True)
class Entry:
    """A message of a stream, to be acknowledged by its *id*."""

    stream: str
    id: str
    body: str


@dataclass
class Hearing:
    """Whether a subscription hears: it publishes to itself, and must hear that."""

    client: "redis.Redis"
    beat_s: float = 5.0
    deaf_after_s: float = 15.0
    heard_at: float | None = None  # when anything was heard last, monotonic
    _is_allowed: bool | None = None  # to publish to itself; None where that is not known

    @asynccontextmanager
    async def subscribed(self, channels: Sequence[str]) -> AsyncIterator[AsyncIterator[tuple[str, str] | None]]:
        """Subscribe to *channels*; yields (channel, body), and None each second in which nothing came.

        Raises Deaf where its own beat is not heard for *deaf_after_s*: the connection is dead, although it looks alive.
        """
        own = f"lectern:heard:{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        pubsub = self.client.pubsub(ignore_subscribe_messages=True)
        beating: asyncio.Task[None] | None = None
        try:
            if await self._may_use(own):
                await pubsub.subscribe(*channels, own)
                beating = asyncio.create_task(self._beat(own))
            else:
                await pubsub.subscribe(*channels)
            self.heard_at = time.monotonic()
            yield self._messages(pubsub, own, is_beating=beating is not None)
        except NoPermissionError:
            self._is_allowed = None
            raise
        finally:
            if beating is not None:
                beating.cancel()
                await asyncio.wait([beating], timeout=1.0)
            async with asyncio.timeout(5.0):
                await pubsub.aclose()  # type: ignore[no-untyped-call]  # as the library declares it

    async def _may_use(self, own: str) -> bool:
        if self._is_allowed is None:
            try:
                await self.client.publish(own, "")
                self._is_allowed = True
            except NoPermissionError as error:
                self._is_allowed = False
                log.warning("redis: a subscription that goes deaf is not noticed, give the user lectern:*: %s", error)
        return self._is_allowed

    async def _beat(self, own: str) -> None:
        while True:
            try:
                async with asyncio.timeout(self.beat_s):
                    await self.client.publish(own, "")
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("%s: not published, so it is not heard: %s", own, error)
            heed_cancel()
            await asyncio.sleep(self.beat_s)

    async def _messages(self, pubsub: PubSub, own: str, *, is_beating: bool) -> AsyncIterator[tuple[str, str] | None]:
        quiet_s = 0.0
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(self.deaf_after_s):
                    found = await pubsub.get_message(timeout=1.0)
            except TimeoutError:
                found, quiet_s = None, self.deaf_after_s
            heed_cancel()
            now = time.monotonic()
            if found is None or found["type"] != "message":
                # Counted in seconds of listening: a process that stood still has not listened, so it is not deaf.
                quiet_s += min(now - began, 1.0)
                if is_beating and quiet_s >= self.deaf_after_s:
                    metrics.DEAF.inc()
                    raise Deaf(f"the subscription has not heard its own beat for {self.deaf_after_s:g} s")
                yield None
                continue
            quiet_s, self.heard_at = 0.0, now
            if found["channel"] == own:
                metrics.HEARD_AT.set_to_current_time()
                yield None
            else:
                yield found["channel"], found["data"]


@dataclass
class Streams:
    """Streams that a group of consumers shares; one that cannot be read is set apart, and the others are read."""

    client: "redis.Redis"
    names: Sequence[str]
    consumer: str
    _open: set[str] = field(default_factory=set)  # those that have our group
    _apart: dict[str, float] = field(default_factory=dict)  # those that have none, and when each is tried again
    _caught_up: set[str] = field(default_factory=set)  # those of which nothing is pending from before our start
    _refused: dict[str, str] = field(default_factory=dict)

    async def next(self, *, count: int, block_ms: int) -> list[Entry]:
        """The next messages; first those that *consumer* got before its start and never acknowledged.

        Raises RedisError where Redis is away, or is only a copy.
        """
        await self._make_groups()
        try:
            return await self._read(count, block_ms)
        except ReadOnlyError:
            raise
        except ResponseError:  # a group or a key is not what it was
            self._open.clear()
            self._apart.clear()
            await self._make_groups()
            return await self._read(count, block_ms)

    def refusals(self) -> dict[str, str]:
        """The streams that Redis did not let us read, and why, since this was asked last."""
        found, self._refused = self._refused, {}
        return found

    async def acknowledge(self, entries: Sequence[Entry]) -> None:
        """The messages are committed on our side."""
        async with self.client.pipeline(transaction=False) as pipe:
            for stream in {entry.stream for entry in entries}:
                pipe.xack(stream, GROUP, *[entry.id for entry in entries if entry.stream == stream])
            await pipe.execute()

    async def _read(self, count: int, block_ms: int) -> list[Entry]:
        if not self._open:
            await asyncio.sleep(block_ms / 1000)
            return []
        behind = [name for name in self.names if name in self._open - self._caught_up]
        wanted = dict.fromkeys(behind or [name for name in self.names if name in self._open], "0" if behind else ">")
        found = await self.client.xreadgroup(
            GROUP, self.consumer, cast("Any", wanted), count=count, block=None if behind else block_ms
        )
        heed_cancel()
        entries = _entries(found)
        if behind and not entries:
            self._caught_up.update(behind)
        return entries

    async def _make_groups(self) -> None:
        now = time.monotonic()
        for name in self.names:
            if name in self._open or self._apart.get(name, 0.0) > now:
                continue
            try:
                await self._make_group(name)
            except ReadOnlyError:
                raise
            except ResponseError as error:
                self._refused[name] = str(error)
                self._apart[name] = now + LOOK_AGAIN_S
            else:
                self._open.add(name)
                self._caught_up.discard(name)
        heed_cancel()

    async def _make_group(self, name: str) -> None:
        """Our group on the stream *name*, from its beginning; a Redis without room for it may have it already."""
        try:
            groups = await self.client.xinfo_groups(name)
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
            groups = []
        if GROUP not in {str(one["name"]) for one in groups}:
            try:
                await self.client.xgroup_create(name, GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise


def heed_cancel() -> None:
    """Raise CancelledError where this task was cancelled: the library can lose a cancel that comes with an answer."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _entries(found: object) -> list[Entry]:
    pairs = cast("Iterable[tuple[str, Any]]", found.items() if isinstance(found, dict) else found or ())
    entries: list[Entry] = []
    for stream, batch in pairs:
        rows = batch[0] if isinstance(found, dict) and batch and isinstance(batch[0], list) else batch
        entries.extend(Entry(str(stream), str(id_), _body(fields)) for id_, fields in rows)
    return entries


def _body(fields: Mapping[str, str] | None) -> str:
    """A producer writes the message in the field ``body``; any single field is read, and several as an object."""
    if not fields:
        return ""
    if "body" in fields:
        return fields["body"]
    return next(iter(fields.values())) if len(fields) == 1 else json.dumps(dict(fields))
