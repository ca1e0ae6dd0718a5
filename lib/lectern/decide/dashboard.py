"""The day in numbers, hour by hour: the outcomes of the bookings, and what classes need of cache and network."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lectern.decide.account import Standing, standing, state_sentence, with_status
from lectern.i18n import Text, msgid
from lectern.model.facts import Needed
from lectern.model.views import ClassView, StreamerStatus
from lectern.states import BookingState

HOURS = 24
HOUR_S = 3600
NEEDED = "pinned by classes"
"""The name, on the wire, of the bytes that booked classes need of the cache."""

SENT = "sent"
"""The name, on the wire, of what is sent at once."""

OUTCOMES: Mapping[str, frozenset[BookingState]] = {
    msgid("ready or aired"): frozenset({BookingState.READY, BookingState.AIRED}),
    msgid("under way"): frozenset({BookingState.RECEIVED, BookingState.WAITING, BookingState.PLACED}),
    msgid("with gaps"): frozenset({BookingState.AIRED_WITH_GAPS}),
    msgid("refused"): frozenset({BookingState.REFUSED}),
    msgid("broken"): frozenset({BookingState.BROKEN}),
    msgid("cancelled"): frozenset({BookingState.CANCELLED}),
}


def outcomes(counted: Iterable[tuple[int, BookingState, int]]) -> dict[str, list[int]]:
    """The number of bookings by outcome, for each of the last 24 hours; *counted* is (hour, state, number)."""
    by_outcome = {name: [0] * HOURS for name in OUTCOMES}
    names = {state: name for name, states in OUTCOMES.items() for state in states}
    for hour, state, number in counted:
        by_outcome[names[state]][min(hour, HOURS - 1)] += number
    return by_outcome


def cache_ahead(needed: Iterable[Needed], now: float) -> list[int]:
    """Bytes that classes need of the cache at each of the next 24 hours, if nothing else is booked."""
    last: dict[str, Needed] = {}
    for need in needed:
        if need.stem not in last or need.until > last[need.stem].until:
            last[need.stem] = need
    ends = [(need.until, need.size_bytes) for need in last.values()]
    return [sum(size for until, size in ends if until > now + hour * HOUR_S) for hour in range(HOURS)]


def sent_ahead(needed: Iterable[Needed], now: float) -> list[float]:
    """The most that is sent at once in each of the next 24 hours, in bits a second, if nothing else is booked."""
    rates = [0.0] * HOURS
    steps: list[tuple[float, float]] = []
    for need in needed:
        steps += [(need.start, need.bits_a_second), (need.until, -need.bits_a_second)]
    rate, hour = 0.0, 0
    for at, more in sorted(steps):
        while hour < HOURS - 1 and at >= now + (hour + 1) * HOUR_S:
            hour += 1
            rates[hour] = rate
        rate = max(rate + more, 0.0)
        if at < now + HOURS * HOUR_S:
            rates[hour] = max(rates[hour], rate)
    return [float(round(rate)) for rate in rates]


def summed(streamers: Iterable[Mapping[str, Sequence[float]]]) -> list[float]:
    """The cache that classes need on all streamers together, in GB for each hour; empty if no streamer reports it."""
    reported = [streamer[NEEDED] for streamer in streamers if len(streamer.get(NEEDED, ())) == HOURS]
    return [round(sum(hour) / 1e9, 3) for hour in zip(*reported, strict=True)]


def largest(streamers: Mapping[str, Mapping[str, Sequence[float]]], number: int, others: str) -> dict[str, list[float]]:
    """What is sent ahead in Mbit/s: by each of the *number* streamers that send most, and by all *others* together."""
    sent = {name: [rate / 1e6 for rate in own.get(SENT, ())] for name, own in streamers.items()}
    ordered = sorted((name for name, own in sent.items() if len(own) == HOURS), key=lambda name: -max(sent[name]))
    shown = {name: sent[name] for name in ordered[:number]}
    if rest := ordered[number:]:
        shown[others] = [sum(sent[name][hour] for name in rest) for hour in range(HOURS)]
    return {name: [round(rate, 1) for rate in values] for name, values in shown.items()}


# Which classes are on air now, which should be and are not, and why: counted over all streamers.


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


def tally(due: Iterable[ClassView], words: Mapping[str, StreamerStatus] | None, now: float) -> Tally:
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
        elif known in MISSED:
            missing.append(Missing(view.class_id, streamer, known, _why(view, known, now)))
        elif known is Standing.SILENT:
            unknown.append(Missing(view.class_id, streamer, known, _why(view, known, now)))
    return Tally(dict(on_air), tuple(missing), tuple(unknown))


def _why(view: ClassView, known: Standing, now: float) -> str:
    if known is Standing.BROKEN and view.booked is not None:
        return Text(
            "broken: {code}: {why}",
            code=view.booked.code,
            why=view.booked.message or "",
        )
    return state_sentence(view, known, now)
