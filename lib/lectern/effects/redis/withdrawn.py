"""Reports, in place of a heartbeat, that a streamer is back at the old program, until its teacher has read that."""

import json
from typing import TYPE_CHECKING

import redis

if TYPE_CHECKING:
    from redis.asyncio import Redis

FIELD = "withdrawn"
_FORGET = """
local beat = redis.call('hget', KEYS[1], ARGV[1])
local readable, said = pcall(cjson.decode, beat or '')
if readable and type(said) == 'table' and said['withdrawn'] then redis.call('hdel', KEYS[1], ARGV[1]) end
return 1
"""


def say(client: "redis.Redis", streamers_key: str, name: str) -> None:
    """Say that the old program has the streamer *name* and its classes: it has no lease, and asks for none."""
    seconds, micros = client.time()
    beat = {"at": int(seconds) + int(micros) / 1e6, "gone": True, FIELD: True}
    with client.pipeline() as pipe:
        pipe.hdel(f"{streamers_key}:lease", name)
        pipe.hdel(f"{streamers_key}:claims", name)
        pipe.hset(streamers_key, name, json.dumps(beat))
        pipe.execute()


def is_read(client: "redis.Redis", streamers_key: str, name: str) -> bool:
    """Whether a teacher has read the report of streamer *name*."""
    return not client.hexists(streamers_key, name)


async def forget(client: "Redis", streamers_key: str, name: str) -> None:
    """Forget the streamer *name*, whose message a teacher has read, unless it beats again."""
    await client.eval(_FORGET, 1, streamers_key, name)
