"""Hears channels of Redis, by a subscription that proves that it is alive."""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import redis.asyncio as redis
from redis.asyncio.client import PubSub
from redis.exceptions import NoPermissionError, RedisError

from lectern.errors import TryAgain
from lectern.redis.connection import asking, away
from lectern.timing import check_cancelled

log = logging.getLogger("lectern")

HANGS_S = 2.0
"""Seconds after which a poll for a message, which should take one second, is given up and restarted."""

Message = tuple[str, str]
"""A channel, and what was published on it."""


@dataclass
class Subscription:
    """A subscription that checks itself: it publishes its beat to a channel of its own, and must receive that.

    If Redis took the beats of *deaf_after_s* and none was heard, the connection is dead although it looks alive, and is
    made anew. A Redis that hangs takes none, so the connection stays: when Redis goes on, it executes what was
    published meanwhile, and only those hear it that are subscribed already.
    """

    client: "redis.Redis"
    beat_s: float = 5.0
    deaf_after_s: float = 15.0
    sent_since: float | None = None  # what arrives now was sent after this (epoch seconds); None if unknown
    _unheard: int = 0  # number of beats that Redis has taken since anything was heard

    @asynccontextmanager
    async def subscribed(self, channels: Sequence[str]) -> AsyncIterator[AsyncIterator[Message | None]]:
        """Subscribe; yields (channel, body), and None each second without one. Raises TryAgain, also while read."""
        own = f"lectern:heard:{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        pubsub = self.client.pubsub(ignore_subscribe_messages=True)
        self.sent_since, self._unheard = time.time(), 0
        async with AsyncExitStack() as ending:
            ending.push_async_callback(_closed, pubsub)
            async with asking():
                try:
                    await self.client.publish(own, "")
                except NoPermissionError as error:
                    self.sent_since = None
                    why = "redis: a subscription that goes deaf is not noticed, give the user lectern:*: %s"
                    log.warning(why, error)
                await pubsub.subscribe(*channels, *([own] if self.sent_since is not None else []))
            if self.sent_since is not None:
                ending.callback(asyncio.create_task(self._beat(own)).cancel)
            yield self._messages(pubsub, own)

    async def _beat(self, own: str) -> None:
        while True:
            at = time.time()
            try:
                async with asking(self.beat_s):
                    await self.client.publish(own, repr(at))
                    self._unheard += self.sent_since != at  # it may be heard before we are told that it was taken
            except TryAgain as error:
                log.debug("%s: not published, so it is not heard: %s", own, error)
            check_cancelled()
            await asyncio.sleep(self.beat_s)

    async def _messages(self, pubsub: PubSub, own: str) -> AsyncIterator[Message | None]:
        from lectern import metrics  # noqa: PLC0415 (what only looks does without it)

        within_s = 1.0  # 0 while more may have come
        while True:
            found = await _next(pubsub, within_s)
            if found is not None:
                self._unheard = 0
            elif within_s and self._unheard * self.beat_s >= self.deaf_after_s:
                metrics.DEAF.inc()
                await self._connect_anew(pubsub)
            within_s = 1.0 if found is None else 0.0
            if found is not None and found[0] == own:
                # A process that stood still reads messages late, but all of them were sent after its last beat.
                self.sent_since, found = float(found[1]), None
                metrics.HEARD_AT.set_to_current_time()
            yield found

    async def _connect_anew(self, pubsub: PubSub) -> None:
        """Connect again, by which the library subscribes again."""
        silent_s, self._unheard = self._unheard * self.beat_s, 0
        log.warning("redis: nothing is heard for %.0f s, not even our own beat: subscribed anew", silent_s)
        async with asking():
            await cast("Any", pubsub).connection.disconnect(nowait=True)
            await pubsub.connect()  # type: ignore[no-untyped-call]  # as the library declares it


async def _next(pubsub: PubSub, within_s: float) -> Message | None:
    """The next message; None if none came in time. Raises TryAgain if the connection ends."""
    try:
        async with asyncio.timeout(HANGS_S) if within_s else nullcontext():  # else the library waits for nothing
            found = await pubsub.get_message(timeout=within_s)
    except TimeoutError:
        found = None
    except (RedisError, OSError) as error:
        raise away(error) from error
    check_cancelled()
    return (found["channel"], found["data"]) if found is not None and found["type"] == "message" else None


async def _closed(pubsub: PubSub) -> None:
    async with asyncio.timeout(5.0):
        await pubsub.aclose()  # type: ignore[no-untyped-call]  # as the library declares it
