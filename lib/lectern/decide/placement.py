"""Which streamer airs a class: rendezvous hashing with bounded load among those alive."""

import hashlib
import math
from collections.abc import Mapping, Sequence


def ranking(stem: str, streamers: Sequence[str]) -> list[str]:
    """The *streamers*, best first for *stem*; the order of two does not depend on who else is alive."""
    weight = {name: hashlib.blake2b(f"{stem}\0{name}".encode(), digest_size=8).digest() for name in streamers}
    return sorted(sorted(streamers), key=weight.__getitem__, reverse=True)


def place(stems: Sequence[str], loads: Mapping[str, int], slack: float) -> list[str | None]:
    """A streamer for each of *stems*, None if none is alive.

    *loads* is the number of classes on each living streamer. No streamer gets more than *slack* times its fair share,
    so a popular rendition spreads over a few streamers, and an unpopular one goes where it is cached.
    """
    if not loads:
        return [None] * len(stems)
    now = dict(loads)
    total = sum(now.values())
    placed: list[str | None] = []
    rankings: dict[str, list[str]] = {}
    for stem in stems:
        total += 1
        bound = math.ceil(slack * total / len(now))
        if stem not in rankings:
            rankings[stem] = ranking(stem, tuple(now))
        chosen = next(name for name in rankings[stem] if now[name] < bound)
        now[chosen] += 1
        placed.append(chosen)
    return placed
