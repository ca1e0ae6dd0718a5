"""Random days of a streamer on a simulated clock: when recordings are there, beside when they were said to be."""

import math
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from benchmarks.figures import Figure
from benchmarks.stand import Stand
from lectern.decide.bandwidth import (
    AHEAD_S,
    Bounds,
    Download,
    Pushes,
    Shares,
    Turn,
    push_bytes,
    shared_out,
    takes,
    turns,
)
from lectern.decide.forecast import MEASURED, Ask, Capacity, forecast, slowness
from lectern.decide.gaps import LOST_S
from lectern.model.facts import Needed
from lectern.windows import Windows

WHAT = (
    "so many bookings of random days, on a simulated clock with steps of 4 s, in which the governor's own decisions"
    " share the network out, and downloads are begun anew for another rate by their own rules. Days have windows or"
    " none, a HOST_RATE or none, and some thirty classes on air; connections break off at random, classes fall"
    " behind the clock, wget takes up to 3 % less than it may, checks take as long as they take, and each booking adds"
    " a push that nobody knew of before. *Foreseen*: those that were there within 20 % or 30 s of the time that was"
    " said at their booking; *its bytes at DOWNLOAD_RATE* is what was said before. *Late*: those that were said to be"
    " there at their start, and were not. What is said to be late is refused, and counts as *refused*"
)
MB, HOUR_S, STEP_S = 1e6, 3600.0, 4.0
DAYS, QUICK_DAYS, EACH = 10, 2, 60
BEGIN = 1_764_032_400.0
"""01:00 in UTC."""


@dataclass
class Fetching:
    """A recording of the simulated streamer; times are epoch seconds."""

    download: Download
    said: float
    plain: float
    booked_at: float
    came: float = 0.0
    rate: float = 0.0
    since: float = 0.0
    stalls_until: float = 0.0
    checked_at: float = math.inf


@dataclass
class Day:
    """A streamer, its network, and what has been booked there."""

    chance: random.Random
    bounds: Bounds
    now: float = BEGIN
    needed: list[Needed] = field(default_factory=list)
    under_way: dict[str, Fetching] = field(default_factory=dict)
    done: list[tuple[Fetching, float]] = field(default_factory=list)
    refused: int = 0
    shares: Shares = field(default_factory=Shares)
    checks: "deque[tuple[float, int]]" = field(default_factory=lambda: deque(maxlen=MEASURED))
    behind_until: float = 0.0
    near: list[Needed] = field(default_factory=list)
    read_at: float = 0.0

    def book(self, number: int) -> None:
        """A booking comes: it is taken, with a time, or refused."""
        size_bytes = int(self.chance.uniform(50, 1000) * MB)
        start = self.now + self.chance.choice([0.3, 2, 12, 24]) * HOUR_S * self.chance.uniform(0.5, 1.5)
        one = Download(str(number), size_bytes, start)
        there = [replace(it.download, came_bytes=int(it.came)) for it in self.under_way.values()]
        capacity = Capacity(self.bounds, self.needed, slowness(self.checks))
        length_s = size_bytes * 8 / 1.5e6
        push = Needed(one.stem, size_bytes, start + length_s, start, length_s)
        found = forecast([Ask("c", one, start + LOST_S, push)], there, capacity, self.now)
        if found.too_late:
            self.refused += 1
            return
        self.needed.append(push)
        plain = self.now + size_bytes / self.bounds.each_bytes
        self.under_way[one.stem] = Fetching(one, found.ready_at["c"], plain, self.now)

    def step(self) -> None:
        """Four seconds pass."""
        if self.chance.random() < STEP_S / (2 * HOUR_S):
            self.behind_until = self.now + self.chance.uniform(2, 20)
        some = [
            replace(one.download, came_bytes=int(one.came), begun=one.since > 0 or one.came > 0)
            for one in self.under_way.values()
        ]
        due = [
            stem
            for stem, its in turns(some, self.bounds, self.shares.urgent, self.now).items()
            if its is not Turn.LATER
        ]
        some = [replace(one, begun=one.begun or one.stem in due[: self.bounds.number]) for one in some]
        if self.now >= self.read_at + 28:
            coming = (one for one in self.needed if one.start < self.now + AHEAD_S + 30 and one.until > self.now)
            self.near, self.read_at = list(coming), self.now
        pushes = Pushes(push_bytes(self.near, self.now), 1.0 if self.now < self.behind_until else 0.0)
        self.shares = shared_out(some, self.bounds, pushes, self.shares, self.now)
        for stem, rate in self.shares.rates.items():
            self._download(self.under_way[stem], rate)
        self.now += STEP_S
        for stem in [stem for stem, one in self.under_way.items() if one.checked_at <= self.now]:
            one = self.under_way.pop(stem)
            self.done.append((one, one.checked_at))

    def _download(self, one: Fetching, rate: float) -> None:
        if one.rate == 0 or takes(one.rate, rate, self.now - one.since):
            one.rate, one.since, one.stalls_until = rate, self.now, max(one.stalls_until, self.now + 0.5)
        if self.chance.random() < one.rate * STEP_S / (2000 * MB):
            one.stalls_until = self.now + self.chance.choice([2, 2, 2, 4, 8])
        left = one.download.size_bytes - one.came
        speed = one.rate * self.chance.uniform(0.97, 1.0)
        flows_s = max(self.now + STEP_S - max(one.stalls_until, self.now), 0.0)
        if left <= 0 or not speed:
            return
        if left > speed * flows_s:
            one.came += speed * flows_s
            return
        one.came = one.download.size_bytes
        took_s = (0.6 + one.download.size_bytes / (150 * MB)) * self.chance.uniform(0.7, 1.8)
        self.checks.append((took_s, one.download.size_bytes))
        one.checked_at = self.now + STEP_S - flows_s + left / speed + took_s


def measure(stand: Stand) -> Iterator[Figure]:
    """All bookings of all days."""
    days = [_day(seed) for seed in range(QUICK_DAYS if stand.quick else DAYS)]
    done = [one for day in days for one in day.done]
    number, refused = len(done), sum(day.refused for day in days)

    def foreseen(said: str) -> float:
        told = [(float(getattr(one, said)), one.booked_at, at) for one, at in done]
        return 100 * sum(abs(at - when) <= max(30.0, 0.2 * (when - booked)) for when, booked, at in told) / number

    late = [at - one.download.deadline for one, at in done if one.said <= one.download.deadline < at]
    stand.say(f"forecast: {number} recordings, {refused} refused; late: {[round(s) for s in late]}")
    row = f"forecast, {number:,}"
    peers = {"its bytes at DOWNLOAD_RATE": foreseen("plain")}
    yield Figure(f"{row}: foreseen", "%", foreseen("said"), peers, goal=">= 95", compares=False)
    yield Figure(f"{row}: late", "classes", len(late), more_is_better=False, goal="<= 0")
    yield Figure(f"{row}: refused", "% of the bookings", 100 * refused / (number + refused), more_is_better=False)


def _day(seed: int) -> Day:
    chance = random.Random(seed)
    host = chance.choice([math.inf, 12 * MB, 25 * MB, 60 * MB])
    windows = chance.choice(["", "", "00:00-06:30=20m, 06:30-24:00=1000k", "01:00-05:00, 12:00-14:00=4m"])
    bounds = Bounds(host, chance.choice([1.0, 2.0, 4.0]) * 1024**2, 4, Windows.parsed(windows, "UTC"), 7200.0)
    day = Day(chance, bounds)
    for number in range(1600):
        start = BEGIN + chance.uniform(-1, 40) * HOUR_S
        day.needed.append(Needed(f"x{number}", int(500 * MB), start + 2700, start, 2700))
    times = sorted(BEGIN + chance.uniform(0, 24) * HOUR_S for _ in range(EACH))
    for number, at in enumerate(times):
        while day.now < at:
            _pass(day, at)
        day.book(number)
    while day.under_way and day.now < BEGIN + 30 * 24 * HOUR_S:
        _pass(day, math.inf)
    assert not day.under_way, f"{len(day.under_way)} recordings never came"
    return day


def _pass(day: Day, until: float) -> None:
    """Let a step pass, or many at once while nothing is to be downloaded."""
    if not day.under_way and until < math.inf:
        day.now = max(until, day.now)
    elif day.under_way and not any(day.shares.rates.values()) and len(day.shares.later) == len(day.under_way):
        day.now += 15 * STEP_S
        day.step()
    else:
        day.step()
