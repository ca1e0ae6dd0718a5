"""Which classes are on air now, which should be and are not, and why: counted over all streamers."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lectern.decide.account import Standing, standing, state_sentence
from lectern.decide.gathered import with_word
from lectern.told import Found, Word

MISSED = frozenset({Standing.NOT_ON_AIR, Standing.BROKEN})


@dataclass(frozen=True)
class Missing:
    """A class that should be on air; *why* is how it stands instead, or why nobody knows."""

    class_id: str
    streamer: str | None
    standing: Standing
    why: str


@dataclass(frozen=True)
class Tally:
    """The classes in their time: the number on air by streamer, those not on air, and those that nobody knows of."""

    on_air: Mapping[str, int]
    missing: tuple[Missing, ...]
    unknown: tuple[Missing, ...]


def tally(due: Iterable[Found], words: Mapping[str, Word] | None, now: float) -> Tally:
    """Count the classes that are *due* at *now* (epoch seconds), by the last heartbeats of their streamers."""
    on_air: Counter[str] = Counter()
    missing: list[Missing] = []
    unknown: list[Missing] = []
    for one in due:
        found = with_word(one, words)
        known = standing(found, now)
        streamer = found.booked.streamer if found.booked else found.streamer
        if known is Standing.ON_AIR:
            on_air[streamer or "?"] += 1
        elif known in MISSED:
            missing.append(Missing(found.class_id, streamer, known, _why(found, known, now)))
        elif known is Standing.SILENT:
            unknown.append(Missing(found.class_id, streamer, known, _why(found, known, now)))
    return Tally(dict(on_air), tuple(missing), tuple(unknown))


def _why(found: Found, known: Standing, now: float) -> str:
    if known is Standing.BROKEN and found.booked is not None:
        return f"broken: {found.booked.code}: {found.booked.message}"
    return state_sentence(found, known, now)
