"""Sends messages to Redis, and hears its channels, by a subscription that proves that it is alive."""

import asyncio
import logging
import os
import secrets
import socket
import time
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
