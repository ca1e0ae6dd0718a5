"""Redis: channels, streams, waiting lists, heartbeats and statuses, and the lock of a queue."""

import json
import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import groupby
from typing import Any

import redis as blocking
import redis.asyncio as redis
from pydantic import TypeAdapter, ValidationError
from redis.exceptions import NoPermissionError, ReadOnlyError, RedisError

from lectern.db.outbox import Refusal, Rest, Unsent
from lectern.errors import Misuse, TryAgain
from lectern.model.views import StreamerStatus
from lectern.redis import connection
from lectern.redis.connection import asking
from lectern.redis.pubsub import Subscription
from lectern.redis.streams import Streams
from lectern.wire.fields import is_name
from lectern.wire.outgoing import OutgoingKind

BEAT = """
local at = redis.call('time')
redis.call('hdel', KEYS[3], ARGV[1])
local holder = redis.call('hget', KEYS[2], ARGV[1])
if holder == ARGV[2] then
  local now = at[1] .. '.' .. string.format('%06d', at[2])
  redis.call('hset', KEYS[1], ARGV[1], '{"at": ' .. now .. ', ' .. string.sub(ARGV[3], 2))
  return redis.call('hgetall', KEYS[1])
end
if holder ~= '-' .. ARGV[5] then redis.call('hset', KEYS[3], ARGV[1], ARGV[4]) end
if holder and string.sub(holder, 1, 1) ~= '-' then
  local beat = redis.call('hget', KEYS[1], ARGV[1])
  local readable, said = pcall(cjson.decode, beat or '{}')
  if not beat or readable and type(said) == 'table' and said['session'] == ARGV[2] then return '+' .. holder end
end
return holder
"""
"""Writes the heartbeat of a streamer whose session holds the lease; for any other session, writes a claim.

Then it returns who holds the lease: nil if Redis has forgotten it, `-SESSION` if it was taken from that session. That
session is never granted again: its streamer may know of the grant, but not which classes were moved since. It is
`+SESSION` if that has not beaten since it was granted, but the streamer's last beat was of its session now: a process
of it that died before reading the grant had asked for that.

A Redis that has reached its `maxmemory` refuses `HSET`, unless the script has written before. So `HDEL`, which it never
refuses, comes first: a lease must not run out because others' data fill Redis, and a heartbeat takes the place of one.
"""

NOTE = """
redis.call('hdel', KEYS[1], ARGV[1])
redis.call('hset', KEYS[1], ARGV[1], ARGV[2])
"""
"""Notes one thing of a streamer, also in a Redis that is full: its lease, that it leaves, its status."""

KEPT = """
local at = redis.call('time')
local now = at[1] .. '.' .. string.format('%06d', at[2])
local info = redis.pcall('info', 'server')
local run = type(info) == 'string' and string.match(info, 'run_id:(%w+)')
local since = redis.call('hget', KEYS[2], 'kept since')
if not tonumber(since) or run and run ~= redis.call('hget', KEYS[2], 'kept by') then
  since = now
  redis.call('hdel', KEYS[2], 'kept since')
  redis.call('hset', KEYS[2], 'kept since', since, 'kept by', run or '')
end
"""
"""Finds since when Redis has surely lost no heartbeat: it is noted beside the leases, under what is no name.

Whatever empties Redis loses the note, too. One that was started again, or a copy that took over, may have older
heartbeats than it had before, and the note names another process. Then the next teacher that looks notes it anew. A
user who may not ask which process it is (`INFO`) has what the note says.
"""

TAKE = f"""{KEPT}
local beat = redis.call('hget', KEYS[1], ARGV[1]) or ''
local readable, said = pcall(cjson.decode, beat)
local heard = readable and type(said) == 'table' and tonumber(said['at']) or since
local silent_s = math.min(math.abs(now - heard), math.abs(now - since))
if silent_s <= tonumber(ARGV[2]) then return 0 end
local holder = redis.call('hget', KEYS[2], ARGV[1]) or ''
redis.call('hdel', KEYS[2], ARGV[1])
if string.sub(holder, 1, 1) ~= '-' then holder = '-' .. holder end
redis.call('hset', KEYS[2], ARGV[1], holder)
redis.call('hdel', KEYS[3], ARGV[1])
if readable then redis.call('hset', KEYS[1], ARGV[1], (string.gsub(beat, '"session"', '"taken"', 1))) end
return 1
"""
"""Takes the lease of a streamer that has sent no readable heartbeat for the given number of seconds.

Redis must have lost none for as long: one that was emptied or started again may have renewed the lease before. The
mark with the session tells the streamer that its lease was taken; a Redis that has lost its data has none. A claim
that was sent before goes, too: its session may be the one that has just lost its classes. What the last beat said
stays, but it is no longer one of the session that it came of.
"""

GRANT = """
if redis.call('hget', KEYS[1], ARGV[1]) == '-' .. ARGV[2] then return 0 end
redis.call('hdel', KEYS[1], ARGV[1])
redis.call('hset', KEYS[1], ARGV[1], ARGV[2])
return 1
"""
"""Grants the lease of a streamer to a session, unless it was taken from just that one since the session was claimed."""

NUMBERS = frozenset({int, float})  # as JSON has them: a bool, which Python takes for a number, is none
FAR = 1e15


def _keys(key: str) -> tuple[str, str, str]:
    """The hashes of the heartbeats, the leases and the claims of all streamers."""
    return key, f"{key}:lease", f"{key}:claims"


def _readable(
    what: str, told: Mapping[str, str], keep: Callable[[dict[str, Any]], bool], known: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """The JSON objects in *told*; an unreadable text is left out, and logged when it is new."""
    found: dict[str, dict[str, Any]] = {}
    for name, text in told.items():
        fields: Any = None
        with suppress(ValueError, RecursionError):
            fields = json.loads(text)
        if is_name(name) and isinstance(fields, dict) and keep(fields):
            found[str(name)] = fields
            known.pop(name, None)
        elif known.get(name) != text:
            known[name] = text
            log.warning("redis: the %s of streamer %s is unreadable, it is passed over: %.200r", what, name, text)
    return found


def _is_beat(fields: Mapping[str, Any]) -> bool:
    at: Any = fields.get("at")
    return type(at) in NUMBERS and -FAR < at < FAR


def _is_claim(fields: Mapping[str, Any]) -> bool:
    session, lease_s = fields.get("session"), fields.get("lease_s", -1)
    return isinstance(session, str) and is_name(session) and type(lease_s) in NUMBERS and 0 <= lease_s < FAR


log = logging.getLogger("lectern")
_words = cache(lambda: TypeAdapter(StreamerStatus))  # made when the first is sent or read: few commands do either
MOST_BYTES = 512 * 1024
"""Most bytes that are read of a streamer's status: some thousand classes on air take a third of them."""


# Reports, in place of a heartbeat, that a streamer is back at the old program, until its teacher has read that.
WITHDRAWN = "withdrawn"
_FORGET = """
local beat = redis.call('hget', KEYS[1], ARGV[1])
local readable, said = pcall(cjson.decode, beat or '')
if readable and type(said) == 'table' and said['withdrawn'] then redis.call('hdel', KEYS[1], ARGV[1]) end
return 1
"""


def say_withdrawn(client: blocking.Redis, streamers_key: str, name: str) -> None:
    """Say that the old program has the streamer *name* and its classes: it has no lease, and asks for none."""
    seconds, micros = client.time()
    beat = {"at": int(seconds) + int(micros) / 1e6, "gone": True, WITHDRAWN: True}
    with client.pipeline() as pipe:
        pipe.hdel(f"{streamers_key}:lease", name)
        pipe.hdel(f"{streamers_key}:claims", name)
        pipe.hset(streamers_key, name, json.dumps(beat))
        pipe.execute()


def withdrawal_is_read(client: blocking.Redis, streamers_key: str, name: str) -> bool:
    """Whether a teacher has read the report of streamer *name*."""
    return not client.hexists(streamers_key, name)


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


KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""By these options the kernel notices a dead peer within half a minute; not every system has all of them."""

CLUSTER_S = 3.0
"""Seconds that Redis has to say whether it is one of a cluster: the start of a host waits for that."""

_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"
_RENEW = (
    "local held = redis.call('get', KEYS[1]) "
    "if held == ARGV[1] then redis.call('pexpire', KEYS[1], ARGV[2]) return false "
    "elseif held then return held end "
    "redis.call('del', KEYS[1]) redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2]) return false"
)
"""A Redis that has reached its `maxmemory` refuses `SET`, unless the script has written before."""


class Bus:
    """One Redis, over one pool of connections; every call has a timeout, and raises TryAgain only, see `asking`."""

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client
        self.hearing = Subscription(client)
        self._unreadable: dict[str, dict[str, str]] = {"beats": {}, "claims": {}}

    @classmethod
    def open(cls, url: str, *, timeout_s: float = 10) -> "Bus":
        """A bus at *url*, a server or sentinels; raises Misuse if it is neither. Connects at the first call."""
        options: dict[str, Any] = {
            "decode_responses": True,
            "encoding_errors": "replace",
            **dict.fromkeys(("socket_timeout", "socket_connect_timeout"), timeout_s),
            "health_check_interval": 15,
            "protocol": 2,  # an older server knows no other, and the client reads it in two thirds of the time
        }
        if not url.startswith("unix:"):
            known = {getattr(socket, name): value for name, value in KEEPALIVE.items() if hasattr(socket, name)}
            options |= {"socket_keepalive": True, "socket_keepalive_options": known}
        return cls(connection.opened(url, options))

    @asking()
    async def close(self) -> None:
        """Close the connections."""
        await connection.close(self._client)

    @asking()
    async def now(self) -> float:
        """The time of Redis' clock, which all hosts share, in epoch seconds."""
        seconds, micros = await self._client.time()
        return int(seconds) + int(micros) / 1e6

    async def _together(self, commands: Iterable[Sequence[str | int]], *, raise_on_error: bool = True) -> list[Any]:
        """The answers to *commands*, which are sent in one round trip."""
        async with self._client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return await pipe.execute(raise_on_error)

    # -- messages ---------------------------------------------------------------------------------------------

    def streams(self, names: Sequence[str], consumer: str, *, shared: bool = False) -> Streams:
        """The streams *names*, read by *consumer* of our group; if *shared*, they take over entries of the dead."""
        return Streams(self._client, names, consumer, shared)

    async def send(self, messages: Sequence[Unsent], until: float | None = None) -> Sent:
        """Send all messages in few round trips, in their order, each as far as it is not done yet.

        A message that Redis refuses holds up no other. After *until*, as `now` counts, nothing is sent.
        """
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
                # Before the script runs, Redis refuses all of it for one declared key that the user may not use. Keys
                # that are not are judged one by one, when the script comes to them: a proxy may want them declared.
                try:
                    found: Sequence[Any] = await self._client.eval(_SEND, len(keys), *keys, *given) if some else ()
                except NoPermissionError:
                    found = await self._client.eval(_SEND, 0, *given, *keys)
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

    @asking()
    async def add(self, stream: str, body: str) -> None:
        """Add one message to a stream, which keeps it until somebody reads it."""
        await self._client.xadd(stream, {"body": body}, maxlen=STREAM_BOUND, approximate=True)

    @asking()
    async def publish_alarm(self, channel: str, body: str) -> None:
        """Send an alarm directly, because the database cannot keep it first; raises TryAgain if nobody gets it."""
        adding = "XADD", channel, "MAXLEN", "~", STREAM_BOUND, "*", "body", body
        published, added = await self._together((("PUBLISH", channel, body), adding), raise_on_error=False)
        # A server that is only a copy keeps nothing, and publishes to nobody.
        if isinstance(added, ReadOnlyError) or (isinstance(added, RedisError) and isinstance(published, RedisError)):
            raise added

    # -- waiting lists, kept for people and for the old program --------------------------------------------------

    @asking()
    async def join_waiting(self, joins: Mapping[str, Sequence[str]]) -> None:
        """Append class_ids to the waiting list of each key."""
        await self._together(("RPUSH", key, *class_ids) for key, class_ids in joins.items())

    @asking()
    async def waiting(self, keys: Sequence[str]) -> dict[str, list[str]]:
        """The class_ids on the waiting list of each key; a key of another type counts as empty."""
        found = await self._together((("LRANGE", key, 0, -1) for key in keys), raise_on_error=False)
        return {key: list(one) if isinstance(one, list) else [] for key, one in zip(keys, found, strict=True)}

    @asking()
    async def drop_waiting(self, counts: Mapping[str, int]) -> None:
        """Take the first *counts* entries off each waiting list; an empty list is deleted by Redis."""
        await self._together(("LTRIM", key, count, -1) for key, count in counts.items())

    @asking()
    async def leave_waiting(self, key: str, class_id: str) -> None:
        """Take one class off a waiting list."""
        await self._client.lrem(key, 0, class_id)

    # -- streamers and locks -------------------------------------------------------------------------------------

    @asking()
    async def beat(
        self, key: str, name: str, session: str, fields: Mapping[str, object], claim: Mapping[str, object]
    ) -> dict[str, dict[str, Any]] | str | None:
        """Send the heartbeat of streamer *name*, which renews its lease; returns the last heartbeats of all streamers.

        If *session* does not hold the lease, only the *claim* to a new one is sent. Then the answer is the session that
        holds it: `-SESSION` if the lease was taken from that one, `+SESSION` if that has not beaten yet, None if Redis
        knows of none.
        """
        said = (
            name,
            session,
            json.dumps({**fields, "session": session}),
            json.dumps(dict(claim)),
            str(claim["session"]),
        )
        found = await self._client.eval(BEAT, 3, *_keys(key), *said)
        if not isinstance(found, list):
            return None if found is None else str(found)
        told = dict(zip(found[::2], found[1::2], strict=True))
        return _readable("heartbeat", told, _is_beat, self._unreadable["beats"])

    @asking()
    async def part(self, key: str, name: str) -> None:
        """Say that streamer *name* is leaving: it gets no more classes, and keeps its lease until it counts as lost.

        The other fields of its last heartbeat stay.
        """
        now, said, _ = await self.heard(key)
        await self._client.eval(NOTE, 1, key, name, json.dumps({**said.get(name, {}), "at": now, "gone": True}))

    @asking()
    async def heard(self, key: str) -> tuple[float, dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """The shared clock, the last beat of each streamer, and the claims to a lease."""
        asked = ("TIME",), ("HGETALL", key), ("HGETALL", f"{key}:claims")
        (seconds, micros), told, claims = await self._together(asked)
        said = _readable("heartbeat", told, _is_beat, self._unreadable["beats"])
        claimed = _readable("claim", claims, _is_claim, self._unreadable["claims"])
        return int(seconds) + int(micros) / 1e6, said, claimed

    async def alive(self, key: str, lost_after_s: float) -> dict[str, dict[str, Any]]:
        """The last heartbeats of the streamers heard within *lost_after_s*, except those that are leaving or full."""
        now, said, _ = await self.heard(key)
        return {
            name: one
            for name, one in sorted(said.items())
            if abs(now - one["at"]) <= lost_after_s and not one.get("gone", False) and not one.get("full", False)
        }

    @asking()
    async def say(self, key: str, name: str, own: StreamerStatus) -> None:
        """Publish the status of streamer *name*, with the time of the clock that all hosts share."""
        seconds, _ = await self._client.time()
        body = _words().dump_json(replace(own, at=float(seconds))).decode()
        await self._client.eval(NOTE, 1, f"{key}:words", name, body)

    @asking()
    async def words(self, key: str, lost_after_s: float) -> dict[str, StreamerStatus]:
        """The last status of each streamer, by name; *silent_s* is set if it is older than *lost_after_s*."""
        (seconds, _), bodies = await self._together([("TIME",), ("HGETALL", f"{key}:words")])
        found: dict[str, StreamerStatus] = {}
        for name, body in sorted(bodies.items()):
            try:
                word = _words().validate_json(body[:MOST_BYTES])
            except ValidationError:
                log.debug("redis: what streamer %s says of itself cannot be read", name)
                continue  # a newer release says more, or somebody else wrote it: its classes are not heard of
            age_s = max(float(seconds) - word.at, 0.0)
            found[name] = replace(word, silent_s=age_s if age_s > lost_after_s else None)
        return found

    @asking()
    async def grant(self, key: str, name: str, session: str) -> None:
        """Grant the lease of streamer *name* to *session*, unless it was taken from that one meanwhile."""
        await self._client.eval(GRANT, 1, f"{key}:lease", name, session)

    @asking()
    async def lease_of(self, key: str, name: str) -> str | None:
        """The session that holds the lease of streamer *name*, `-SESSION` if it was taken from that one; or None."""
        held = await self._client.hget(f"{key}:lease", name)
        return None if held is None else str(held)

    @asking()
    async def kept_since(self, key: str) -> str:
        """The time since when Redis has lost no heartbeat; another one after it was emptied or started again."""
        return str(await self._client.eval(f"{KEPT} return since", 3, *_keys(key)))

    @asking()
    async def take(self, key: str, name: str, silent_s: float) -> bool:
        """Take the lease of streamer *name* away; False if its last heartbeat is, or may be, younger than *silent_s*.

        It may be if Redis was emptied or started again since.
        """
        return bool(await self._client.eval(TAKE, 3, *_keys(key), name, silent_s))

    @asking()
    async def forget_withdrawn(self, key: str, name: str) -> None:
        """Forget streamer *name*, which reported that it is back at the old program, unless it beats again."""
        await self._client.eval(_FORGET, 1, key, name)

    @asking()
    async def hold(self, lock: str, owner: str, ttl_s: float) -> str | None:
        """Take or renew a lock; returns who else holds it, None if it is *owner*'s now."""
        found = await self._client.eval(_RENEW, 1, lock, owner, int(ttl_s * 1000))
        return None if found is None else str(found)

    @asking()
    async def let_go(self, lock: str, owner: str) -> None:
        """Release the lock if *owner* holds it."""
        await self._client.eval(_RELEASE, 1, lock, owner)

    @asking()
    async def types(self, keys: Sequence[str]) -> dict[str, str]:
        """The type of each key; ``none`` if the key does not exist."""
        return dict(zip(keys, map(str, await self._together(("TYPE", key) for key in keys)), strict=True))

    async def refuse_cluster(self) -> None:
        """Raise Misuse if the server belongs to a cluster: our scripts need all keys on one server."""
        try:
            async with asking(CLUSTER_S):
                found = await self._client.info("cluster")
        except TryAgain as error:
            log.debug("redis: does not say whether it is one of a cluster: %s", error)
            return
        if int(found.get("cluster_enabled", 0)):
            raise Misuse(connection.NO_CLUSTER)

    @asking()
    async def try_write(self) -> None:
        """Raise TryAgain, with a ResponseError as its cause, if Redis answers, but takes no writes."""
        await self._client.eval(connection.TRY_WRITE, 1, connection.TRIED_KEY)
