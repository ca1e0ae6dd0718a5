"""The day in numbers: which classes are on air and which are not, and what classes need of a cache."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lectern.decide.account import Standing, standing, state_sentence, with_status
from lectern.i18n import Text
from lectern.model.facts import Needed
from lectern.model.views import ClassView, StreamerStatus

HOURS = 24
HOUR_S = 3600
NEEDED = "pinned by classes"
"""The name, on the wire, of the bytes that booked classes need of the cache."""


def cache_ahead(needed: Iterable[Needed], now: float) -> list[int]:
    """Bytes that classes need of the cache at each of the next 24 hours, if nothing else is booked."""
    last: dict[str, Needed] = {}
    for need in needed:
        if need.stem not in last or need.until > last[need.stem].until:
            last[need.stem] = need
    ends = [(need.until, need.size_bytes) for need in last.values()]
    return [sum(size for until, size in ends if until > now + hour * HOUR_S) for hour in range(HOURS)]


MISSED = frozenset({Standing.NOT_ON_AIR, Standing.BROKEN})


@dataclass(frozen=True)
class Missing:
    """A class that should be on air; *why* is how it stands instead, or why nobody knows."""

    class_id: str
    streamer: str | None
    standing: Standing
    why: str


@dataclass(frozen=True)
class ClassCounts:
    """The classes in their time: the number on air by streamer, those not on air, and those that nobody knows of."""

    on_air: Mapping[str, int]
    missing: tuple[Missing, ...]
    unknown: tuple[Missing, ...]


def class_counts(due: Iterable[ClassView], words: Mapping[str, StreamerStatus] | None, now: float) -> ClassCounts:
    """Count the classes that are *due* at *now* (epoch seconds), by the last heartbeats of their streamers."""
    on_air: Counter[str] = Counter()
    missing: list[Missing] = []
    unknown: list[Missing] = []
    for class_ in due:
        view = with_status(class_, words)
        known = standing(view, now)
        streamer = view.booked.streamer if view.booked else view.streamer
        if known is Standing.ON_AIR:
            on_air[streamer or "?"] += 1
        elif known in MISSED or known is Standing.SILENT:
            why = state_sentence(view, known, now)
            if known is Standing.BROKEN and view.booked is not None:
                why = Text("broken: {code}: {why}", code=view.booked.code, why=view.booked.message or "")
            (missing if known in MISSED else unknown).append(Missing(view.class_id, streamer, known, why))
    return ClassCounts(dict(on_air), tuple(missing), tuple(unknown))
