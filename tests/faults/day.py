"""What the platform and the transcoder do on a random day; all of it follows from the seed."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal["old", "listed", "transcoded", "malformed", "garbage"]
How = Literal["stop", "kill", "cut", "freeze"]
RESOLUTIONS = ("240P", "480P", "720P", "1080P")
TIME_OUT_S = 20.0
AHEAD_S = 100_000.0
SPACING_S = 0.8
"""Between two bookings, on the average."""

GARBAGE = ("", "{", "[]", '{"cmd": "order"}', '{"cmd": "order", "class_id": "../etc/passwd"}', "\x00\xff", '"order"')

LONG_S = 300.0
"""A class is on air for so long that its streamer can be lost meanwhile, and another take it over; then it ends."""


@dataclass(frozen=True)
class Rendition:
    """What the transcoder makes of a request for it."""

    record: int  # counted from 0
    resolution: str
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
    """A class as it is booked, doubled, cancelled."""

    number: int
    at_s: float
    kind: Kind
    record: int
    resolution: str | None
    starts_in_s: float
    length_s: float
    again_after_s: tuple[float, ...]
    differently_after_s: float | None
    cancelled_after_s: float | None

    @property
    def is_on_air(self) -> bool:
        """Whether it is on air during the day."""
        return self.starts_in_s < AHEAD_S


@dataclass(frozen=True)
class Day:
    """All of it."""

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
    renditions = {
        (record, resolution): _rendition(chance, record, resolution)
        for record in range(records)
        for resolution in RESOLUTIONS
    }
    classes: list[Class] = []
    at_s = 0.0
    while len(classes) < number:
        one = _class(chance, len(classes), at_s, records)
        classes.append(one)
        for _ in range(min(_followers(chance, one), number - len(classes))):  # several wait for the same
            at_s += chance.choice((0.0, 0.02, 0.1, 0.3))
            classes.append(_class(chance, len(classes), at_s, records, like=one))
        at_s += chance.expovariate(1 / SPACING_S) * (len(classes) - one.number)
    hows: tuple[How, ...] = ("stop", "kill", "cut", "freeze")
    first = chance.randrange(len(hows))
    lost: list[tuple[Class, How]] = []
    for turn in range(losses):
        one = classes[turn * number // losses] = _long(classes[turn * number // losses])
        lost.append((one, hows[(first + turn) % len(hows)]))
    return Day(seed, tuple(classes), renditions, records, max(8, number // 6), at_s, tuple(lost))


def _rendition(chance: random.Random, record: int, resolution: str) -> Rendition:
    return Rendition(
        record,
        resolution,
        chance.choices(("made", "failed", "none"), (8, 1, 1))[0],
        chance.choice((0.0, 0.05, 0.3, 1.0, 2.5, TIME_OUT_S + 2)),
        chance.choice((None, None, 0.0, 0.5, 4.0)),
        chance.choice((None, 0.1, 1.0)),
        # Our own results carry their attempt; the cloud's do not, but its backend may not be at work any more.
        chance.choice(({"type": "oss", "attempt": 0}, {"type": "ecs", "attempt": 0}, {"type": "ecs"})),
        chance.random() < 0.8,
    )


def _long(one: Class) -> Class:
    """The same, but on air for long, and never cancelled."""
    return replace(
        one,
        kind="old",
        resolution=None,
        starts_in_s=10.0,
        length_s=LONG_S,
        differently_after_s=None,
        cancelled_after_s=None,
    )


def _followers(chance: random.Random, one: Class) -> int:
    return chance.choice((0, 1, 2, 5)) if one.kind == "transcoded" else 0


def _class(chance: random.Random, number: int, at_s: float, records: int, like: Class | None = None) -> Class:
    kind = chance.choices(("old", "listed", "transcoded", "malformed", "garbage"), (25, 25, 40, 6, 4))[0]
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
        chance.uniform(0.5, 4) if chance.random() < 0.04 else None,
        chance.uniform(0, 6) if chance.random() < 0.15 else None,
    )
