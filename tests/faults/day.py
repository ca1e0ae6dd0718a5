"""What the platform and the transcoder do on a random day; all of it follows from the seed."""

import asyncio
import json
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal

from redis.exceptions import RedisError

from lectern.states import Resolution
from town.oss_transcoder import OssTranscoder, Rule, result

Kind = Literal["old", "listed", "transcoded"]
How = Literal["stop", "kill", "cut", "freeze"]
RESOLUTIONS = ("240P", "480P", "720P", "1080P")
TIME_OUT_S = 20.0
AHEAD_S = 100_000.0
SPACING_S = 0.8
"""Between two bookings, on the average."""

CHANGED = 0.4
"""So many of the classes are changed, before they are on air or meanwhile."""

LONG_S = 300.0
"""A class is on air for so long that its streamer can be lost meanwhile, and another take it over; then it ends."""


@dataclass(frozen=True)
class Rendition:
    """What the transcoder makes of a request for it."""

    result: Literal["made", "failed", "none"]
    delay_s: float
    again_after_s: float | None  # doubled
    lie_after_s: float | None  # a failure of an attempt that was given up
    lie: Mapping[str, object]  # by what it is known to be one
    kept: bool  # on the stream, where it waits for a reader; else on the channel, which forgets

    @property
    def codes(self) -> frozenset[int]:
        """With which codes a class that waits for it may be answered."""
        if self.result == "failed":
            return frozenset({207, 208})
        in_time = self.kept and self.delay_s < TIME_OUT_S / 2
        return frozenset({0} if self.result == "made" and in_time else {0, 207} if self.result == "made" else {207})


@dataclass(frozen=True)
class Class:
    """A class as it is booked, doubled, changed, cancelled."""

    number: int
    at_s: float
    kind: Kind
    record: int  # counted from 0
    resolution: str | None
    starts_in_s: float
    length_s: float
    again_after_s: tuple[float, ...]
    cancelled_after_s: float | None
    changed_after_s: tuple[float, ...] = ()

    @property
    def is_on_air(self) -> bool:
        return self.starts_in_s < AHEAD_S


@dataclass(frozen=True)
class Day:
    seed: int
    classes: tuple[Class, ...]
    renditions: Mapping[tuple[int, str], Rendition]
    records: int
    cached: int  # renditions that a streamer may keep: less than are asked for
    length_s: float = field(default=0.0)
    losses: tuple[tuple[Class, How], ...] = ()  # classes on air, and how their streamers are lost


def day(seed: int, number: int, losses: int) -> Day:
    """The day of a seed, with so many classes; so many times a streamer is lost that has one on air."""
    chance = random.Random(f"day {seed}")
    records = max(5, number // 8)
    renditions = {(record, resolution): _rendition(chance) for record in range(records) for resolution in RESOLUTIONS}
    classes: list[Class] = []
    at_s = 0.0
    while len(classes) < number:
        one = _class(chance, len(classes), at_s, records)
        classes.append(one)
        followers = chance.choice((0, 1, 2, 5)) if one.kind == "transcoded" else 0
        for _ in range(min(followers, number - len(classes))):  # several wait for the same
            at_s += chance.choice((0.0, 0.02, 0.1, 0.3))
            classes.append(_class(chance, len(classes), at_s, records, like=one))
        at_s += chance.expovariate(1 / SPACING_S) * (len(classes) - one.number)
    changing = random.Random(f"changes {seed}")
    for one in [one for one in classes if changing.random() < CHANGED]:
        until_s = min(one.starts_in_s + one.length_s, 30.0)
        after_s = tuple(changing.uniform(0, until_s) for _ in range(changing.choice((1, 1, 2, 3))))
        classes[one.number] = replace(one, changed_after_s=after_s)
    hows: tuple[How, ...] = ("stop", "kill", "cut", "freeze")
    first = chance.randrange(len(hows))
    lost: list[tuple[Class, How]] = []
    for turn in range(losses):
        at = turn * number // losses
        its = {"starts_in_s": 10.0, "length_s": LONG_S, "cancelled_after_s": None, "changed_after_s": ()}
        classes[at] = replace(classes[at], kind="old", resolution=None, **its)  # type: ignore[arg-type]  # as its fields
        lost.append((classes[at], hows[(first + turn) % len(hows)]))
    return Day(seed, tuple(classes), renditions, records, max(8, number // 6), at_s, tuple(lost))


def _rendition(chance: random.Random) -> Rendition:
    return Rendition(
        chance.choices(("made", "failed", "none"), (8, 1, 1))[0],
        chance.choice((0.0, 0.05, 0.3, 1.0, 2.5, TIME_OUT_S + 2)),
        chance.choice((None, None, 0.0, 0.5, 4.0)),
        chance.choice((None, 0.1, 1.0)),
        # Our own results carry their attempt; the cloud's do not, but its backend may not be at work any more.
        chance.choice(({"type": "oss", "attempt": 0}, {"type": "ecs", "attempt": 0}, {"type": "ecs"})),
        chance.random() < 0.8,
    )


def _class(chance: random.Random, number: int, at_s: float, records: int, like: Class | None = None) -> Class:
    kind = chance.choices(("old", "listed", "transcoded"), (25, 25, 40))[0]
    record, resolution = chance.randrange(records), chance.choice(RESOLUTIONS)
    if like is not None:
        kind, record, resolution = like.kind, like.record, like.resolution or resolution
    soon = kind in {"old", "listed"} and chance.random() < 0.35
    return Class(
        number,
        at_s,
        kind,  # type: ignore[arg-type]  # a literal that was drawn
        record,
        None if kind == "old" else resolution,
        chance.uniform(5, 15) if soon else AHEAD_S + number,
        chance.uniform(10, 30) if soon else 600.0,
        tuple(chance.uniform(0, 5) for _ in range(chance.choice((0, 0, 0, 1, 2)))),
        chance.uniform(0, 6) if chance.random() < 0.15 else None,
    )


class Transcoder(OssTranscoder):
    """Makes nothing: says of each rendition what the day has for it, late, doubled, or not at all."""

    renditions: Mapping[tuple[int, str], Rendition] = {}

    async def _answer(self, rule: Rule, record_id: int, resolution: Resolution) -> None:
        found = self.renditions.get((record_id, resolution.value))
        if found is None or found.result == "none":
            return
        url = f"{self._origin_url}/{record_id}/{record_id}_{resolution}.flv"
        told = [(found.delay_s, result(record_id, resolution, url if found.result == "made" else ""))]
        if found.again_after_s is not None:
            told.append((found.delay_s + found.again_after_s, told[0][1]))
        if found.lie_after_s is not None:
            told.append((found.lie_after_s, {**result(record_id, resolution, ""), **found.lie}))
        began = time.monotonic()
        for at_s, said in sorted(told, key=lambda one: one[0]):
            await asyncio.sleep(max(0.0, began + at_s - time.monotonic()))
            await self._say(said, kept=found.kept)

    async def _say(self, said: dict[str, object], *, kept: bool) -> None:
        assert self._redis is not None
        for _ in range(200):  # a transcoder that reaches no Redis tries again, as the cloud's does
            with suppress(RedisError, OSError):
                if kept:
                    await self._redis.xadd(self._channel, {"body": json.dumps(said)})
                else:
                    await self._redis.publish(self._channel, json.dumps(said))
                return
            await asyncio.sleep(0.2)
