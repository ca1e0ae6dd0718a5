"""When renditions will be there, by all that is to be downloaded before them: what a booking is told, and held to."""

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

from lectern import formatting
from lectern.decide.bandwidth import AHEAD_S, PUSHES, Bounds, Download, Pushes, Shares, shared_out
from lectern.i18n import Text
from lectern.model.facts import Needed

SURE = 1.1
"""How many times its bytes a download is expected to take: connections break off, and classes may fall behind."""

CHECK_S, CHECK_BYTES = 1.0, 100e6
"""Seconds, and bytes a second, that beginning and checking a download take, before any were measured."""

MEASURED, ENOUGH, MOST = 50, 5, 0.9
"""Number of the last downloads whose checks count; the number from which they do; the part of them that is quicker."""

NEVER = 4e9
"""When a rendition will be there for which nothing is left: the year 2096, which no class reaches."""

Pieces = Iterator[tuple[float, float, float]]
"""Begin, end and bytes a second of each piece of time."""


def always(at: float) -> Pieces:
    """One piece of time without an end and without a limit."""
    yield at, math.inf, math.inf


@dataclass(frozen=True)
class Fetch:
    """A rendition to be downloaded: *deadline* is when the first class begins that needs it (epoch seconds)."""

    stem: str
    size_bytes: int
    left_bytes: int
    deadline: float = math.inf
    begun: bool = False  # it has its place already


@dataclass(frozen=True)
class Network:
    """What downloads may take: the bounds, the windows from a time on, and the classes whose pushes come first.

    *slow* is how many times as long as expected the checks take.
    """

    bounds: Bounds
    needed: Sequence[Needed] = ()
    windows: Callable[[float], Pieces] = always
    slow: float = 1.0

    def checks_s(self, size_bytes: int) -> float:
        """Seconds for which a download of *size_bytes* is begun and checked."""
        return (CHECK_S + size_bytes / CHECK_BYTES) * self.slow

    def pieces(self, now: float) -> Pieces:
        """The time from *now* on, with what downloads may take together in each piece of it."""
        ends = sorted({*(one.start for one in self.needed), *(one.until for one in self.needed)})
        steps = sorted(step for one in self.needed for step in _steps(one))
        sums = list(accumulate(bits for _, bits in steps))
        at_steps = [at for at, _ in steps]
        turns = sorted({turn for end in ends for turn in (end - AHEAD_S, end)})
        for begin, end, rate in self.windows(now):
            edges = [begin, *turns[bisect_right(turns, begin) : bisect_left(turns, end)], end]
            for at, until in pairwise(edges):
                first, last = bisect_right(at_steps, at), bisect_left(at_steps, at + AHEAD_S)
                need = max([sums[first - 1] if first else 0.0, *sums[first:last]]) / 8
                yield at, until, min(rate, max(self.bounds.host_bytes - PUSHES * need, 0.0))


def _steps(one: Needed) -> list[tuple[float, float]]:
    return [(one.start, one.bits_a_second), (one.until, -one.bits_a_second)]


def slowness(checks: Iterable[tuple[float, int]]) -> float:
    """How many times as long as expected checks take, by the last of them: seconds and bytes of each."""
    expected = Network(Bounds(math.inf, math.inf, 1)).checks_s
    factors = sorted(took_s / expected(size_bytes) for took_s, size_bytes in checks)
    return factors[int(MOST * (len(factors) - 1))] if len(factors) >= ENOUGH else 1.0


@dataclass
class _Play:
    """The downloads as they will go, from one change to the next."""

    network: Network
    queue: "deque[Fetch]"
    left: dict[str, float] = field(default_factory=dict)  # bytes of those that have a place
    begun: dict[str, Fetch] = field(default_factory=dict)
    ready: dict[str, float] = field(default_factory=dict)

    def rates(self, room: float, at: float) -> Mapping[str, float]:
        """Begin what finds a place at *at*; returns the bytes a second of all that are under way."""
        each, number = self.network.bounds.each_bytes, self.network.bounds.number
        while True:
            coming = [Download(stem, math.ceil(left), self.begun[stem].deadline) for stem, left in self.left.items()]
            rates = shared_out(coming, Bounds(room, each, number), Pushes(), Shares(), at).rates
            checked = sum(self.ready[stem] > at for stem in self.begun.keys() - self.left.keys())
            waiting = sum(not rate for rate in rates.values())
            free = number - len(self.left) - checked + min(number, waiting)
            if free <= 0 or not self.queue:
                return rates
            for _ in range(min(free, len(self.queue))):
                one = self.queue.popleft()
                self.begun[one.stem], self.left[one.stem] = one, one.left_bytes * SURE

    def go(self, at: float, until: float, room: float) -> None:
        """Download from *at* until *until*, in which all together may take *room* bytes a second."""
        while at < until and (self.left or self.queue):
            rates = self.rates(room, at)
            turns = [at + self.left[stem] / rate for stem, rate in rates.items() if rate]
            turns += [end for stem, end in self.ready.items() if end > at] if self.queue else []
            turn = min([until, *turns])
            for stem, rate in rates.items():
                if rate and at + self.left[stem] / rate <= turn:
                    del self.left[stem]
                    self.ready[stem] = turn + self.network.checks_s(self.begun[stem].size_bytes)
                elif rate:
                    self.left[stem] -= rate * (turn - at)
            at = turn


def arrivals(fetches: Iterable[Fetch], network: Network, now: float) -> dict[str, float]:
    """When each rendition will be in its place (epoch seconds) if nothing else is booked, or NEVER."""
    queue = sorted(fetches, key=lambda one: (not one.begun, one.deadline, one.stem))
    play = _Play(network, deque(queue))
    for at, until, room in network.pieces(now):
        if not (play.left or play.queue):
            break
        play.go(at, until, room)
    return {one.stem: play.ready.get(one.stem, NEVER) for one in queue}


@dataclass(frozen=True)
class Ask:
    """A class that needs a rendition which is not there; after *latest* (epoch seconds) it would come too late.

    *first*: it was promised by another streamer, and is not refused for the sake of other classes.
    """

    class_id: str
    fetch: Fetch
    latest: float
    first: bool = False


@dataclass(frozen=True)
class Outlook:
    """When the rendition of each class that is taken will be there, and of each class that is to be refused.

    *harmed*: the rendition that would come too late because of a class.
    """

    ready_at: Mapping[str, float] = field(default_factory=dict)
    too_late: Mapping[str, float] = field(default_factory=dict)
    harmed: Mapping[str, str] = field(default_factory=dict)


def outlook(asks: Sequence[Ask], under_way: Sequence[Fetch], network: Network, now: float) -> Outlook:
    """Which of *asks* can be kept beside the downloads *under_way*; what is in time now, stays in time."""
    taken: list[Ask] = []
    ready_at: dict[str, float] = {}
    too_late: dict[str, float] = {}
    harmed: dict[str, str] = {}

    def take(group: Sequence[Ask], kept: Mapping[str, float]) -> None:
        found = arrivals(_together(under_way, [*taken, *group]), network, now)
        late = [ask for ask in (*taken, *group) if found[ask.fetch.stem] > ask.latest]
        hurt = [stem for stem, deadline in kept.items() if found[stem] > deadline]
        if not late and not hurt:
            taken.extend(group)
            ready_at.update((ask.class_id, found[ask.fetch.stem]) for ask in taken)
        elif len(group) > 1:
            take(group[: len(group) // 2], kept)
            take(group[len(group) // 2 :], kept)
        else:
            too_late[group[0].class_id] = found[group[0].fetch.stem]
            if group[0] not in late:
                harmed[group[0].class_id] = (hurt or [late[0].fetch.stem])[0]

    if promised := [ask for ask in asks if ask.first]:
        take(promised, {})
    if others := [ask for ask in asks if not ask.first]:
        there = _together(under_way, taken)
        before = arrivals(there, network, now)
        take(others, {one.stem: one.deadline for one in there if before[one.stem] <= one.deadline})
    return Outlook(ready_at, too_late, harmed)


def _together(under_way: Iterable[Fetch], asks: Iterable[Ask]) -> list[Fetch]:
    found = {one.stem: one for one in under_way}
    for ask in asks:
        one = found.setdefault(ask.fetch.stem, ask.fetch)
        found[one.stem] = replace(one, deadline=min(one.deadline, ask.fetch.deadline))
    return list(found.values())


def will_be_there(stem: str, ready_at: float, start: float, now: float) -> Text:
    """The forecast in a sentence, with the time before or after the *start* of the class."""
    if ready_at >= NEVER:
        return Text("{stem} will not be there: no window and no bandwidth is left for it", stem=stem)
    at = formatting.when(ready_at, now)
    if ready_at <= start:
        return Text(
            "{stem} will be there at {at}, {early_s:span} before its start", stem=stem, at=at, early_s=start - ready_at
        )
    return Text(
        "{stem} will be there at {at}, {late_s:span} after its start", stem=stem, at=at, late_s=ready_at - start
    )
