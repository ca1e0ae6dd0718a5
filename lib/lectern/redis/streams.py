"""Reads streams that consumers share, takes over entries of dead consumers, and trims what all have acknowledged."""

import asyncio
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import redis.asyncio as redis
from redis.exceptions import ReadOnlyError, ResponseError

from lectern.i18n import Text, msgid
from lectern.redis.connection import asking
from lectern.timing import check_cancelled

log = logging.getLogger("lectern")
GROUP = "lectern"
LOOK_AGAIN_S = 30.0
"""Seconds until a stream that cannot be read is retried."""

LEFT_S = 10.0
"""Seconds after which an entry that another consumer has not acknowledged is taken over: it is dead or hangs."""

LOOK_FOR_LEFT_S = 2.0
MOST_LEFT = 10_000  # number of entries that one process can have left: it reads batch_max at a time
TRIM_EVERY_S = 60.0
GONE_S = 86_400.0
"""Seconds after which an idle consumer without pending entries is forgotten, because teachers may change names."""


@dataclass(frozen=True)
class StreamEntry:
    """A message of a stream, to be acknowledged by its *id*."""

    stream: str
    id: str
    body: str


@dataclass
class Streams:
    """Streams that a group of consumers shares; a stream that cannot be read is set apart, and the others are read."""

    client: "redis.Redis"
    names: Sequence[str]
    consumer: str
    shared: bool = False  # other consumers of our group may read them, too
    refused: dict[str, str] = field(default_factory=dict)
    """The streams that Redis did not let us read, or trim, and a sentence about each; its reader empties it."""

    _looked_at: float = field(default_factory=time.monotonic)  # last look for entries of the dead, monotonic
    _trimmed_at: float = field(default_factory=time.monotonic)
    _open: set[str] = field(default_factory=set)  # streams that have our group
    _apart: dict[str, float] = field(default_factory=dict)  # streams without our group: when each is retried
    _caught_up: set[str] = field(default_factory=set)  # streams without pending entries from before our start

    @asking()
    async def next(self, *, count: int, block_ms: int) -> list[StreamEntry]:
        """The next messages, first those never acknowledged. Raises TryAgain if Redis is away, or is only a copy."""
        if len(self._open) < len(self.names):
            await self._make_groups()
        try:
            left = await self._left(count) if self.shared else []
            return left or await self._read(count, block_ms)
        except ResponseError:  # a group or a key was deleted or replaced
            self._open.clear()
            self._apart.clear()
            await self._make_groups()
            return await self._read(count, block_ms)

    @asking()
    async def acknowledge(self, entries: Sequence[StreamEntry]) -> None:
        """Acknowledge messages that are committed to the database."""
        async with self.client.pipeline(transaction=False) as pipe:
            for stream in {entry.stream for entry in entries}:
                pipe.xack(stream, GROUP, *[entry.id for entry in entries if entry.stream == stream])
            await pipe.execute()

    @asking()
    async def trim(self) -> int:
        """Delete, at most once a minute, the entries that all groups have acknowledged; returns their number.

        Nobody else trims: a producer that adds without a bound would fill Redis. Also forgets consumers that are gone.
        """
        if time.monotonic() - self._trimmed_at < TRIM_EVERY_S:
            return 0
        self._trimmed_at = time.monotonic()
        trimmed = 0
        for name in sorted(self._open):
            with self._set_apart(name, msgid("Redis does not let {stream} be trimmed, so it grows: {why}")):
                trimmed += await self._trimmed(name)
        return trimmed

    async def _trimmed(self, name: str) -> int:
        needed: list[str] = []  # the first entry that each group has not acknowledged; none has read nothing
        for group in await self.client.xinfo_groups(name):
            pending: Any = await self.client.xpending(name, str(group["name"]))
            needed.append(str(pending["min"]) if pending["pending"] else str(group["last-delivered-id"]))
        first = min(needed, key=_order, default="0-0")
        trimmed = int(await self.client.xtrim(name, minid=first, approximate=False, limit=None))
        for one in await self.client.xinfo_consumers(name, GROUP) if self.shared else ():
            if not one["pending"] and one["idle"] > GONE_S * 1000 and str(one["name"]) != self.consumer:
                await self.client.xgroup_delconsumer(name, GROUP, str(one["name"]))
        return trimmed

    @contextmanager
    def _set_apart(self, name: str, said: str) -> Iterator[None]:
        """A context for one stream: what Redis refuses is *said* in `refused`, and the others have their turn."""
        try:
            yield
        except ReadOnlyError:
            raise
        except ResponseError as error:
            self.refused[name] = Text(said, stream=name, why=error)

    async def _left(self, count: int) -> list[StreamEntry]:
        """Take over entries that other consumers read and never acknowledged."""
        if time.monotonic() - self._looked_at < LOOK_FOR_LEFT_S:
            return []
        self._looked_at = time.monotonic()
        entries: list[StreamEntry] = []
        for name in sorted(self._open):
            idle_ms = int(LEFT_S * 1000)
            found: Any = await self.client.xautoclaim(name, GROUP, self.consumer, idle_ms, count=count)
            entries.extend(StreamEntry(name, str(id_), _body(fields)) for id_, fields in found[1] if id_ is not None)
            entries.extend(StreamEntry(name, str(id_), "") for ids in found[2:] for id_ in ids)  # trimmed meanwhile
            if (None, None) in found[1]:  # Redis 6 keeps such entries, and names none: they are ours now, and read anew
                self._caught_up.discard(name)
        if entries:
            log.warning("redis: %d entries that another teacher left are taken over", len(entries))
        return entries

    async def _read(self, count: int, block_ms: int) -> list[StreamEntry]:
        if not self._open:
            await asyncio.sleep(block_ms / 1000)
            return []
        behind = [name for name in self.names if name in self._open - self._caught_up]
        wanted = dict.fromkeys(behind or [name for name in self.names if name in self._open], "0" if behind else ">")
        found: Any = await self.client.xreadgroup(
            GROUP, self.consumer, cast("Any", wanted), count=count, block=None if behind else block_ms
        )
        check_cancelled()
        # As protocol 2, which the bus asks for, answers: each stream with its entries.
        entries = [
            StreamEntry(str(name), str(id_), _body(fields)) for name, some in found or () for id_, fields in some
        ]
        if behind and not entries:
            self._caught_up.update(behind)
        return entries

    async def _make_groups(self) -> None:
        now = time.monotonic()
        for name in self.names:
            if name in self._open or self._apart.get(name, 0.0) > now:
                continue
            self._apart[name] = now + LOOK_AGAIN_S
            with self._set_apart(name, msgid("Redis does not let {stream} be read: {why}")):
                await self._make_group(name)
                self._open.add(name)
                self._caught_up.discard(name)

    async def _make_group(self, name: str) -> None:
        """Make our group on the stream *name*, from its beginning, unless it exists: a full Redis can make none."""
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
        if not self.shared:  # nobody else reads it: this host had another name, under which it read those
            left: Any = await self.client.xpending_range(name, GROUP, "-", "+", MOST_LEFT)
            if ids := [str(one["message_id"]) for one in left if str(one["consumer"]) != self.consumer]:
                await self.client.xclaim(name, GROUP, self.consumer, 0, cast("Any", ids), justid=True)
                log.warning("redis: %d entries that this host left under another name are taken over", len(ids))


def _order(id_: str) -> tuple[int, int]:
    milliseconds, _, number = id_.partition("-")
    return int(milliseconds), int(number or 0)


def _body(fields: Mapping[str, str] | None) -> str:
    """The message of an entry: its field ``body``, else its only field, else all fields as a JSON object."""
    if not fields:
        return ""
    if "body" in fields:
        return fields["body"]
    return next(iter(fields.values())) if len(fields) == 1 else json.dumps(dict(fields))
