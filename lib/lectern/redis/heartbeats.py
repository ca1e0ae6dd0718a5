"""Heartbeats of streamers and their claims to a lease: the scripts that write them, and the parsing of both."""

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeGuard

from lectern.wire.fields import is_name

log = logging.getLogger("lectern")
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
return holder
"""
"""Writes the heartbeat of a streamer whose session holds the lease; for any other session, writes a claim.

Then it returns who holds the lease: nil if Redis has forgotten it, `-SESSION` if it was taken from that session. That
session is never granted again: its streamer may know of the grant, but not which classes were moved since.

A Redis that has reached its `maxmemory` refuses `HSET`, unless the script has written before. So `HDEL`, which it never
refuses, comes first: a lease must not run out because others' data fill Redis, and a heartbeat takes the place of one.
"""

NOTE = """
redis.call('hdel', KEYS[1], ARGV[1])
redis.call('hset', KEYS[1], ARGV[1], ARGV[2])
"""
"""Notes one thing of a streamer, also in a Redis that is full: its lease, that it leaves, its status."""

TAKE = """
local beat = redis.call('hget', KEYS[1], ARGV[1])
local at = redis.call('time')
if beat then
  local readable, said = pcall(cjson.decode, beat)
  local heard = readable and type(said) == 'table' and tonumber(said['at'])
  if heard and at[1] + at[2] / 1000000 - heard <= tonumber(ARGV[2]) then return 0 end
end
local holder = redis.call('hget', KEYS[2], ARGV[1]) or ''
redis.call('hdel', KEYS[2], ARGV[1])
if string.sub(holder, 1, 1) ~= '-' then holder = '-' .. holder end
redis.call('hset', KEYS[2], ARGV[1], holder)
redis.call('hdel', KEYS[3], ARGV[1])
return 1
"""
"""Takes the lease of a streamer that has sent no readable heartbeat for the given number of seconds.

The mark with the session tells the streamer that its lease was taken; a Redis that has lost its data has none. A claim
that was sent before goes, too: its session may be the one that has just lost its classes.
"""

GRANT = """
if redis.call('hget', KEYS[1], ARGV[1]) == '-' .. ARGV[2] then return 0 end
redis.call('hdel', KEYS[1], ARGV[1])
redis.call('hset', KEYS[1], ARGV[1], ARGV[2])
return 1
"""
"""Grants the lease of a streamer to a session, unless it was taken from just that one since the session was claimed."""


def readable(
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


def is_beat(fields: Mapping[str, Any]) -> bool:
    """Whether a heartbeat has the time at which it was sent."""
    return _is_number(fields.get("at"))


def is_claim(fields: Mapping[str, Any]) -> bool:
    """Whether a claim names a session, and the length of its lease."""
    session, lease_s = fields.get("session"), fields.get("lease_s")
    return isinstance(session, str) and is_name(session) and _is_number(lease_s) and lease_s >= 0


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e15 < value < 1e15
