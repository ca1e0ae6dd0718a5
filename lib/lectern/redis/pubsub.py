"""Sends messages to Redis, and hears its channels, by a subscription that proves that it is alive."""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, cast

import redis.asyncio as redis
from redis.asyncio.client import PubSub
from redis.exceptions import NoPermissionError, RedisError

from lectern.db.outbox import Refusal, Rest, Unsent
from lectern.errors import TryAgain
from lectern.redis.connection import asking, away
from lectern.timing import check_cancelled
from lectern.wire.outgoing import OutgoingKind

STREAM_BOUND = 100_000
"""Approximate number of messages to which a stream is trimmed when we write to it."""

SEND_AT_ONCE = 1000
"""Number of messages per round trip, in which Redis serves no other client for about 5 ms."""

LATE = "LATE"
"""How Redis' answer begins to messages that came after their time."""

# One command for many messages: reading an answer to each costs more than sending them. A stream that refuses a message
# gets none of those behind it, because a streamer must not read a grant before the releases that it follows. A server
# that is only a copy refuses all writes but would publish, to nobody: there the whole command fails.
_SEND = """
if ARGV[2] ~= '' then
  local at = redis.call('time')
  if at[1] + at[2] / 1000000 > tonumber(ARGV[2]) then return redis.error_reply('LATE for the others') end
end
local refused, shut = {}, {}
local runs = tonumber(ARGV[3])
local first = 4 + 2 * runs
local i = first
for run = 1, runs do
  local target = KEYS[run] or ARGV[#ARGV - runs + run]
  local todo, number = ARGV[2 * run + 2], tonumber(ARGV[2 * run + 3])
  for _ = 1, number do
    local not_added, not_published
    if todo ~= 'publish' then
      not_added = shut[target]
      if not not_added then
        local done = redis.pcall('xadd', target, 'MAXLEN', '~', ARGV[1], '*', 'body', ARGV[i])
        if type(done) == 'table' and done.err then
          not_added = done.err
          if string.find(not_added, '^-?READONLY') then return redis.error_reply(not_added) end
          shut[target] = not_added
        end
      end
    end
    if todo ~= 'add' then
      local done = redis.pcall('publish', target, ARGV[i])
      if type(done) == 'table' and done.err then not_published = done.err end
    end
    if not_added or not_published then
      refused[#refused + 1] = i - first
      refused[#refused + 1] = (not_added and not_published and 'both') or (not_added and 'add') or 'publish'
      refused[#refused + 1] = not_added or not_published
    end
    i = i + 1
  end
end
return refused
"""
"""Its arguments are the bound of a stream; until when it may begin, or nothing; the number of runs of messages to one
target; what is to be done with each run, and how many messages it has; then all messages; at last the targets, if they
are not its keys. The client takes longer to write an argument than Redis to read it."""


@dataclass
class Sent:
    """The result of sending: the first *number* messages reached Redis, which *refused* some; then the way *broke*.

    If *late*, the rest came after their time.
    """

    number: int = 0
    refused: list[Refusal] = field(default_factory=list)
    broke: Exception | None = None
    late: bool = False


async def send(client: "redis.Redis", messages: Sequence[Unsent], until: float | None = None) -> Sent:
    """Send all in their order, each as far as it is not done yet; after *until* at Redis' clock it takes none."""
    sent = Sent()
    limit = "" if until is None else repr(until)
    shut: dict[str, str] = {}  # streams that have refused a message, and why
    for first in range(0, len(messages), SEND_AT_ONCE):
        together = messages[first : first + SEND_AT_ONCE]
        held = [one for one in together if one.kind == OutgoingKind.STREAM and one.target in shut]
        some = [one for one in together if one.kind != OutgoingKind.STREAM or one.target not in shut]
        runs = [(*run, len(list(its))) for run, its in groupby(some, key=lambda one: (one.target, one.todo))]
        said = [str(one) for _, todo, number in runs for one in (todo, number)]
        keys = [target for target, _, _ in runs]
        try:
            given: list[str | int] = [STREAM_BOUND, limit, len(keys), *said, *(one.body for one in some)]
            # Before the script runs, Redis refuses all of it for one declared key that the user may not use. Keys that
            # are not declared are judged one by one, when the script comes to them: a proxy may want them declared.
            try:
                found: Sequence[Any] = await client.eval(_SEND, len(keys), *keys, *given) if some else ()
            except NoPermissionError:
                found = await client.eval(_SEND, 0, *given, *keys)
        except (RedisError, OSError) as error:
            sent.late = str(error).startswith(LATE)
            sent.broke = None if sent.late else error
            return sent
        triples = zip(found[::3], found[1::3], found[2::3], strict=True)
        refused = [Refusal(some[int(index)], Rest(rest), str(why)) for index, rest, why in triples]
        sent.refused += [*refused, *(Refusal(one, Rest.ADD, shut[one.target]) for one in held)]
        shut |= {one.message.target: one.why for one in refused if one.message.kind == OutgoingKind.STREAM}
        sent.number += len(together)
    return sent


log = logging.getLogger("lectern")

HANGS_S = 2.0
"""Seconds after which a poll for a message, which should take one second, is given up and restarted."""


BESIDE_S = 0.1
"""Seconds for which a poll waits for a message while there are two subscriptions."""

AT_ONCE = 1000
"""Messages that are taken from one of two subscriptions before the other one has its turn."""

Message = tuple[str, str]
"""A channel, and what was published on it."""


@dataclass
class Subscription:
    """Subscriptions that check themselves: each publishes to a channel of its own, and must receive that."""

    client: "redis.Redis"
    beat_s: float = 5.0
    deaf_after_s: float = 15.0
    sent_since: float | None = None  # what arrives now was sent after this (epoch seconds); None if unknown
    _is_allowed: bool = False  # whether it may publish to itself, as far as that is known

    @asynccontextmanager
    async def subscribed(self, channels: Sequence[str]) -> AsyncIterator[AsyncIterator[Message | None]]:
        """Subscribe to *channels*; yields (channel, body), and None each second in which nothing came.

        If its own beat is not heard for *deaf_after_s*, it subscribes again: the connection may be dead although it
        looks alive. The old subscription stays until the new one is proved: a Redis that hung executes what was
        published meanwhile when it goes on, and only the old one hears that.
        """
        pair = _Pair(self, channels, await self.opened(channels))
        try:
            yield pair.messages()
        except TryAgain as error:
            if isinstance(error.__cause__, NoPermissionError):
                self._is_allowed = False
            raise
        finally:
            await pair.close()

    @asking()
    async def opened(self, channels: Sequence[str]) -> "_Subscription":
        """A new subscription to *channels*."""
        own = f"lectern:heard:{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        began = time.time()
        pubsub = self.client.pubsub(ignore_subscribe_messages=True)
        async with AsyncExitStack() as failed:
            failed.push_async_callback(_closed, pubsub)
            if not self._is_allowed:
                try:
                    await self.client.publish(own, "")
                    self._is_allowed = True
                except NoPermissionError as error:
                    why = "redis: a subscription that goes deaf is not noticed, give the user lectern:*: %s"
                    log.warning(why, error)
            is_beating = self._is_allowed
            await pubsub.subscribe(*channels, *([own] if is_beating else []))
            failed.pop_all()
        beating = asyncio.create_task(self._beat(own)) if is_beating else None
        return _Subscription(pubsub, own, beating, sent_since=began if is_beating else None)

    async def _beat(self, own: str) -> None:
        while True:
            try:
                async with asking(self.beat_s):
                    await self.client.publish(own, repr(time.time()))
            except TryAgain as error:
                log.debug("%s: not published, so it is not heard: %s", own, error)
            check_cancelled()
            await asyncio.sleep(self.beat_s)


@dataclass(eq=False)
class _Subscription:
    """One subscription, which publishes its beat on the channel *own* unless it may not (*beating* is None)."""

    pubsub: PubSub
    own: str
    beating: "asyncio.Task[None] | None"
    sent_since: float | None
    quiet_s: float = 0.0
    """Seconds of listening since it last heard anything, its own beat included; 0 if it has none."""

    beats: int = 0
    """Number of its own beats that it has heard."""

    heard: Counter[Message] = field(default_factory=Counter)
    """How often each message was heard since a second subscription was begun."""

    async def next(self, within_s: float) -> Message | None:
        """The next message; None if none came in time, or its own beat. Raises RedisError if the connection ends."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(HANGS_S) if within_s else nullcontext():  # else the library waits for nothing
                found = await self.pubsub.get_message(timeout=within_s)
        except TimeoutError:
            found = None
        check_cancelled()
        if found is None or found["type"] != "message":
            if self.beating is not None:
                # Counted in seconds of listening: a process that stood still has not listened, so it is not deaf.
                self.quiet_s += min(time.monotonic() - began, HANGS_S)
            return None
        self.quiet_s = 0.0
        if found["channel"] != self.own:
            return found["channel"], found["data"]
        # A process that stood still reads messages late, but all of them were sent after its last beat.
        self.sent_since = float(found["data"])
        self.beats += 1
        return None

    async def close(self) -> None:
        if self.beating is not None:
            self.beating.cancel()
            await asyncio.wait([self.beating], timeout=1.0)
        await _closed(self.pubsub)


async def _closed(pubsub: PubSub) -> None:
    async with asyncio.timeout(5.0):
        await pubsub.aclose()  # type: ignore[no-untyped-call]  # as the library declares it


class _Pair:
    """A subscription, and beside it the one that takes its place; what both hear is one message."""

    def __init__(self, hearing: Subscription, channels: Sequence[str], first: _Subscription) -> None:
        self._hearing, self._channels = hearing, channels
        self._old, self._new = first, cast("_Subscription | None", None)
        self._opening: asyncio.Task[_Subscription] | None = None
        self._passed: Counter[Message] = Counter()  # the messages that were yielded since the second one was begun
        self._proved: tuple[float, int] | None = None  # when the new one was (monotonic); the old one's beats then

    async def messages(self) -> AsyncIterator[Message | None]:
        """The messages, and None each second in which nothing came."""
        while True:
            await self._renew()
            is_alone = self._new is None and self._opening is None
            for one in [self._old] if self._new is None else [self._old, self._new]:
                if one not in (self._old, self._new):
                    continue  # its connection has just ended
                found, taken = await self._next(one, 1.0 if is_alone else BESIDE_S), 1
                while found is not None:
                    if not is_alone:  # the k-th hearings of both are one message
                        one.heard[found] += 1
                    if is_alone or one.heard[found] > self._passed[found]:
                        self._passed[found] += not is_alone
                        self._hearing.sent_since = one.sent_since
                        yield found
                    found, taken = await self._next(one, 0.0) if taken < AT_ONCE else None, taken + 1
            yield None

    async def close(self) -> None:
        """End all subscriptions."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening], timeout=1.0)
            if self._opening.done() and not self._opening.cancelled() and self._opening.exception() is None:
                await self._opening.result().close()
        for one in (self._old, self._new):
            if one is not None:
                await one.close()

    async def _next(self, one: _Subscription, within_s: float) -> Message | None:
        beats = one.beats
        try:
            found = await one.next(within_s)
        except (RedisError, OSError) as error:
            if self._new is None:
                raise away(error) from error
            await self._end(one)
            return None
        if one.beats > beats:
            self._hearing.sent_since = one.sent_since
            from lectern import metrics  # noqa: PLC0415 (what only looks does without it)

            metrics.HEARD_AT.set_to_current_time()
        return found

    async def _renew(self) -> None:
        """Subscribe again if the subscription is deaf, and end the old one when the new one hears all."""
        if self._new is not None:
            now = time.monotonic()
            if self._new.quiet_s >= self._hearing.deaf_after_s:
                await self._end(self._new)
            elif self._new.beats and self._proved is None:
                self._proved = now, self._old.beats
            elif self._proved and (
                self._old.beats > self._proved[1] or now - self._proved[0] > 2 * self._hearing.beat_s
            ):
                await self._end(self._old)  # the old one has read all that only it heard, or it hears nothing any more
        elif self._opening is not None and self._opening.done():
            opening, self._opening = self._opening, None
            try:
                self._new = opening.result()
            except TryAgain as error:
                log.debug("redis: cannot be subscribed anew yet: %s", error)
        elif self._opening is None and self._old.quiet_s >= self._hearing.deaf_after_s:
            from lectern import metrics  # noqa: PLC0415 (as above)

            metrics.DEAF.inc()
            log.warning("redis: nothing is heard for %.0f s, not even our own beat: subscribed anew", self._old.quiet_s)
            self._old.quiet_s = 0.0  # it is retried after as long
            # Counted from now on: the new one may hear what comes before we know that it is there.
            self._old.heard, self._passed, self._proved = Counter(), Counter(), None
            self._opening = asyncio.create_task(self._hearing.opened(self._channels))

    async def _end(self, one: _Subscription) -> None:
        """End one of the two; the other one stays."""
        assert self._new is not None
        self._old, self._new = (self._new if one is self._old else self._old), None
        await one.close()
