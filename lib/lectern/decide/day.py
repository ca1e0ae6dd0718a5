"""The day in numbers, hour by hour: what became of the bookings, what the cache has to keep."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lectern.states import BookingState

HOURS = 24
HOUR_S = 3600

OUTCOMES: Mapping[str, frozenset[BookingState]] = {
    "ready or aired": frozenset({BookingState.READY, BookingState.AIRED}),
    "under way": frozenset({BookingState.RECEIVED, BookingState.WAITING, BookingState.PLACED}),
    "refused": frozenset({BookingState.REFUSED}),
    "broken": frozenset({BookingState.BROKEN}),
    "cancelled": frozenset({BookingState.CANCELLED}),
}


@dataclass(frozen=True)
class Needed:
    """A rendition that a class needs until its end (epoch seconds)."""

    stem: str
    size_bytes: int
    until: float


def outcomes(counted: Iterable[tuple[int, BookingState, int]]) -> dict[str, list[int]]:
    """How many bookings of each of the last 24 hours came to what; *counted* is (hour, state, number)."""
    found = {name: [0] * HOURS for name in OUTCOMES}
    names = {state: name for name, states in OUTCOMES.items() for state in states}
    for hour, state, number in counted:
        found[names[state]][min(hour, HOURS - 1)] += number
    return found


def cache_ahead(needed: Iterable[Needed], used_bytes: int, bound_bytes: int, now: float) -> dict[str, list[int]]:
    """What of the cache is pinned, evictable and free at each of the next 24 hours, if nothing else is booked."""
    last: dict[str, Needed] = {}
    for one in needed:
        if one.stem not in last or one.until > last[one.stem].until:
            last[one.stem] = one
    ends = [(one.until, one.size_bytes) for one in last.values()]
    pinned = [sum(size for until, size in ends if until > now + hour * HOUR_S) for hour in range(HOURS)]
    return {
        "pinned by classes": pinned,
        "evictable": [max(used_bytes - one, 0) for one in pinned],
        "free": [max(bound_bytes - max(used_bytes, one), 0) for one in pinned],
    }
