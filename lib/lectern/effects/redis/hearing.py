"""Subscribes to channels, and proves by messages to itself that the subscription is alive."""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import redis.asyncio as redis
from redis.asyncio.client import PubSub
from redis.exceptions import NoPermissionError, RedisError

from lectern.effects import counters

log = logging.getLogger("lectern")

HANGS_S = 2.0
"""Seconds after which a poll for a message, which should take one second, is given up and begun again."""


class Deaf(redis.ConnectionError):
    """A subscription no longer receives its own messages."""


@dataclass
class Hearing:
    """A subscription that checks itself: it publishes to a channel of its own, and must receive that."""

    client: "redis.Redis"
    beat_s: float = 5.0
    deaf_after_s: float = 15.0
    heard_at: float | None = None  # when anything was last received, monotonic
    sent_since: float | None = None  # what arrives now was sent after this (epoch seconds); None if unknown
    _is_allowed: bool | None = None  # whether it may publish to itself; None if that is not known

    @asynccontextmanager
    async def subscribed(self, channels: Sequence[str]) -> AsyncIterator[AsyncIterator[tuple[str, str] | None]]:
        """Subscribe to *channels*; yields (channel, body), and None each second in which nothing came.

        Raises Deaf if its own beat is not heard for *deaf_after_s*: the connection is dead, although it looks alive.
        """
        own = f"lectern:heard:{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        began = time.time()
        pubsub = self.client.pubsub(ignore_subscribe_messages=True)
        beating: asyncio.Task[None] | None = None
        try:
            if await self._may_use(own):
                await pubsub.subscribe(*channels, own)
                beating = asyncio.create_task(self._beat(own))
            else:
                await pubsub.subscribe(*channels)
            self.heard_at = time.monotonic()
            self.sent_since = began if beating is not None else None
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
                    await self.client.publish(own, repr(time.time()))
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("%s: not published, so it is not heard: %s", own, error)
            heed_cancel()
            await asyncio.sleep(self.beat_s)

    async def _messages(self, pubsub: PubSub, own: str, *, is_beating: bool) -> AsyncIterator[tuple[str, str] | None]:
        quiet_s = 0.0
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(HANGS_S):
                    found = await pubsub.get_message(timeout=1.0)
            except TimeoutError:
                found = None
            heed_cancel()
            now = time.monotonic()
            if found is None or found["type"] != "message":
                # Counted in seconds of listening: a process that stood still has not listened, so it is not deaf.
                quiet_s += min(now - began, HANGS_S)
                if is_beating and quiet_s >= self.deaf_after_s:
                    counters.DEAF.inc()
                    raise Deaf(f"the subscription has not heard its own beat for {self.deaf_after_s:g} s")
                yield None
                continue
            quiet_s, self.heard_at = 0.0, now
            if found["channel"] == own:
                # A process that stood still reads messages late, but all of them were sent after its last beat.
                self.sent_since = float(found["data"])
                counters.HEARD_AT.set_to_current_time()
                yield None
            else:
                yield found["channel"], found["data"]


def heed_cancel() -> None:
    """Raise CancelledError if this task was cancelled: the library can lose a cancel that comes with an answer."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
