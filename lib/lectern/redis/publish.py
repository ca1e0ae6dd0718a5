"""Sends messages to Redis in few round trips, and says which of them it refused."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import redis.asyncio as redis
from redis.exceptions import NoPermissionError, RedisError

from lectern.db.outbox import Rest, Unsent
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


@dataclass(frozen=True)
class RefusedByRedis:
    """A message that Redis refused, at least in part (*rest*); *index* is its place among the messages sent."""

    index: int
    rest: Rest
    why: str


@dataclass
class Sent:
    """The result of sending: the first *number* messages reached Redis, which *refused* some; then the way *broke*.

    If *late*, the rest came after their time.
    """

    number: int = 0
    refused: list[RefusedByRedis] = field(default_factory=list)
    broke: Exception | None = None
    late: bool = False


async def send(client: "redis.Redis", messages: Sequence[Unsent], until: float | None = None) -> Sent:
    """Send all in their order, each as far as it is not done yet; after *until* at Redis' clock it takes none."""
    sent = Sent()
    limit = "" if until is None else repr(until)
    shut: dict[str, str] = {}  # streams that have refused a message, and why
    for first in range(0, len(messages), SEND_AT_ONCE):
        together = range(first, min(first + SEND_AT_ONCE, len(messages)))
        held = [i for i in together if messages[i].kind is OutgoingKind.STREAM and messages[i].target in shut]
        going = sorted({*together}.difference(held))
        some = [messages[index] for index in going]
        runs = [(*run, len(list(its))) for run, its in groupby(some, key=lambda one: (one.target, one.todo))]
        said = [str(one) for _, todo, number in runs for one in (todo, number)]
        keys = [target for target, _, _ in runs]
        try:
            given = (STREAM_BOUND, limit, len(keys), *said, *(one.body for one in some))
            found = await _evaluated(client, keys, given) if some else ()
        except (RedisError, OSError) as error:
            sent.late = str(error).startswith(LATE)
            sent.broke = None if sent.late else error
            return sent
        triples = zip(found[::3], found[1::3], found[2::3], strict=True)
        refused = [RefusedByRedis(going[int(index)], Rest(rest), str(why)) for index, rest, why in triples]
        sent.refused += [*refused, *(RefusedByRedis(index, Rest.ADD, shut[messages[index].target]) for index in held)]
        its = [(messages[one.index], one.why) for one in refused]
        shut |= {message.target: why for message, why in its if message.kind is OutgoingKind.STREAM}
        sent.number += len(together)
    return sent


async def _evaluated(client: "redis.Redis", keys: Sequence[str], given: Sequence[str | int]) -> Sequence[Any]:
    """What the script returns; before it runs, Redis refuses all of it for one key that the user may not use.

    Keys that are not declared are judged one by one, when the script comes to them. So they are only declared as long
    as all of them are allowed: a proxy before Redis may want that.
    """
    try:
        found: Sequence[Any] = await client.eval(_SEND, len(keys), *keys, *given)
    except NoPermissionError:
        found = await client.eval(_SEND, 0, *given, *keys)
    return found
