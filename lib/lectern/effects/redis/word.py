"""The status that a streamer sends beside its heartbeat, for its teacher's accounts, counts and page."""

import logging
from collections.abc import Mapping
from dataclasses import replace

from pydantic import TypeAdapter, ValidationError
from redis.asyncio import Redis

from lectern.effects.redis import beats
from lectern.told import Word

log = logging.getLogger("lectern")
_WORDS = TypeAdapter(Word)
MOST_BYTES = 512 * 1024
"""Most bytes that are read of a streamer's status: some thousand classes on air take a third of them."""


def _key(streamers_key: str) -> str:
    return f"{streamers_key}:words"


async def say(client: "Redis", streamers_key: str, name: str, word: Word) -> None:
    """Write *word*, the status of the streamer *name*, with the time of the clock that all hosts share."""
    seconds, _ = await client.time()
    body = _WORDS.dump_json(replace(word, at=float(seconds))).decode()
    await client.eval(beats.NOTE, 1, _key(streamers_key), name, body)


async def said(client: "Redis", streamers_key: str, lost_after_s: float) -> dict[str, Word]:
    """The last status of each streamer; *silent_s* is set if it is older than *lost_after_s*."""
    async with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.hgetall(_key(streamers_key))
        (seconds, _), bodies = await pipe.execute()
    return _read(bodies, float(seconds), lost_after_s)


def _read(bodies: Mapping[str, str], now: float, lost_after_s: float) -> dict[str, Word]:
    found: dict[str, Word] = {}
    for name, body in sorted(bodies.items()):
        try:
            word = _WORDS.validate_json(body[:MOST_BYTES])
        except ValidationError:
            log.debug("redis: what streamer %s says of itself cannot be read", name)
            continue  # a newer release says more, or somebody else wrote it: its classes are not heard of
        age_s = max(now - word.at, 0.0)
        found[name] = replace(word, silent_s=age_s if age_s > lost_after_s else None)
    return found
