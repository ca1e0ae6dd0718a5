"""Shares out a streamer's network: pushes come first; of what they leave, the most urgent download gets most."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate

from lectern.i18n import Text, joined
from lectern.model.facts import Needed
from lectern.settings import StreamerSettings
from lectern.windows import ALWAYS, Windows

PUSHES = 1.25
"""What is kept for pushes, as a multiple of their bit rates: recordings are not as even as their average."""

AHEAD_S = 600.0
"""Seconds from now in which what is sent at once counts."""

BEHIND_S = 0.3
"""Seconds behind the clock from which a class suffers."""

URGENT_S = 900.0
"""Seconds before its class in which a download does not wait for classes that are behind the clock."""

CUT, RISE, LEAST = 0.25, 0.1, 1 / 16
"""While a class is behind, downloads are cut to this share at each look; then they rise again by this much."""

PATIENT, ANEW = 15, 165
"""Number of looks in a row with a class behind after which downloads are not the reason, because cutting them has not
helped: a receiver may be slow. They are cut no more, and once more after so many looks."""

LEAST_BYTES = 16 * 1024
"""Bytes a second below which a download waits instead."""

OTHER, OVER, RISE_S = 1 / 3, 1 / 20, 20.0
"""By which part a rate must be another one until a running download takes it, for which wget must be started anew; by
which it may be too high for long; and seconds until a higher one is taken, or one that is a little lower."""


class Turn(StrEnum):
    """When a download may run."""

    NOW = "in the window that is open"
    LATER = "in the next window"
    URGENT = "at once, whatever the windows say"


@dataclass(frozen=True)
class Download:
    """A recording to be downloaded; *deadline* is when the first class begins that waits for it (epoch seconds)."""

    stem: str
    size_bytes: int
    deadline: float = math.inf
    came_bytes: int = 0
    begun: bool = True

    @property
    def left_bytes(self) -> int:
        """What is still to come."""
        return max(self.size_bytes - self.came_bytes, 0)


@dataclass(frozen=True)
class Bounds:
    """HOST_RATE and DOWNLOAD_RATE in bytes a second, infinite if there is no bound; MAX_DOWNLOADS; and the windows.

    What waits for a window is to be there *ready_before_s* before its class.
    """

    host_bytes: float
    each_bytes: float
    number: int
    windows: Windows = ALWAYS
    ready_before_s: float = 0.0

    @classmethod
    def of(cls, settings: StreamerSettings) -> "Bounds":
        """The bounds that a streamer's settings name."""
        rates = settings.host_rate_bytes, settings.download_rate_bytes, settings.max_downloads
        return cls(*rates, settings.windows, settings.ready_before_s)


@dataclass(frozen=True)
class Pushes:
    """What the classes on air need (bytes a second), and how far the one that is furthest behind is behind."""

    need_bytes: float = 0.0
    behind_s: float = 0.0


@dataclass(frozen=True)
class Shares:
    """The rate of each download in bytes a second, 0 for one that waits.

    *share* is the part that is not cut off, *behind* the number of looks in a row with a class behind the clock;
    *later* are the downloads, begun or not, that wait for the next window, *urgent* those that wait for none.
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    share: float = 1.0
    behind: int = 0
    later: frozenset[str] = frozenset()
    urgent: frozenset[str] = frozenset()

    @property
    def waiting(self) -> int:
        """Number of downloads that wait for what is pushed, or for those before them."""
        return sum(not rate for stem, rate in self.rates.items() if stem not in self.later)


def in_words(shares: Shares) -> str:
    """How many downloads there are, what they may take, and how many of them wait; empty if there are none."""
    n = len(shares.later)
    later = (
        [Text.many("{n:,} download waits for its window", "{n:,} downloads wait for their window", n=n)] if n else []
    )
    if not (number := len(shares.rates.keys() - shares.later)):
        return joined(later) if later else ""
    given = sum(shares.rates.values())
    rate = Text("at most {bytes:size} a second", bytes=given) if math.isfinite(given) else Text("without a limit")
    many = Text.many("{n:,} download, {rate}", "{n:,} downloads, {rate}", n=number, rate=rate)
    waiting = Text.many("{n:,} waits for what is pushed", "{n:,} wait for what is pushed", n=shares.waiting)
    return joined([many, *([waiting] if shares.waiting else []), *later])


def push_bytes(needed: Iterable[Needed], now: float) -> float:
    """The most that classes of the next AHEAD_S seconds need at once, in bytes a second."""
    coming = [one for one in needed if one.start < now + AHEAD_S and one.until > now]
    steps = [(max(one.start, now), one.bits_a_second) for one in coming]
    steps += [(one.until, -one.bits_a_second) for one in coming]
    return max(accumulate(bits for _, bits in sorted(steps)), default=0.0) / 8


def in_order(downloads: Iterable[Download], bounds: Bounds) -> list[Download]:
    """The downloads, first the one that must begin first to be there in time.

    What has come of it does not count: otherwise two that are alike would take turns, each broken off by the other.
    """
    return sorted(downloads, key=lambda one: (one.deadline - one.size_bytes / bounds.each_bytes, one.stem))


def turns(downloads: Iterable[Download], bounds: Bounds, urgent: Collection[str], now: float) -> dict[str, Turn]:
    """When each of the *downloads*, in their order, may run, seen from *now* (epoch seconds).

    What would not be there *ready_before_s* before its class, if it waited for what the windows leave behind those
    before it, comes at once, until it is there. Those that were *urgent* before still are.
    """
    windows, each = bounds.windows, min(bounds.each_bytes, bounds.host_bytes)
    usual = Turn.NOW if windows.rate_at(now) else Turn.LATER
    if windows.are_always and windows.rate_at(now) == math.inf:
        return {one.stem: usual for one in in_order(downloads, bounds)}
    found, turn_at = dict[str, Turn](), now
    for one in in_order(downloads, bounds):
        is_late = windows.ends(one.left_bytes, turn_at, each) > one.deadline - bounds.ready_before_s
        found[one.stem] = Turn.URGENT if is_late or one.stem in urgent else usual
        if found[one.stem] is usual:
            turn_at = windows.ends(one.left_bytes, turn_at, min(bounds.host_bytes, bounds.each_bytes * bounds.number))
    return found


def fair_shares(
    some: Iterable[Download], turn: Mapping[str, Turn], bounds: Bounds, left: float, in_window: float
) -> dict[str, float]:
    """What the first of *some*, in their order, get of the *left* bytes a second; of *in_window*, unless urgent."""
    rates = dict[str, float]()
    for one in some:
        if len(rates) >= bounds.number:
            break
        rate = min(left if turn[one.stem] is Turn.URGENT else min(left, in_window), bounds.each_bytes)
        if rate < min(LEAST_BYTES, bounds.each_bytes):
            continue
        rates[one.stem] = rate
        left -= rate if math.isfinite(rate) else 0.0
        in_window = max(in_window - rate, 0.0) if math.isfinite(rate) else in_window
    return rates


def shared_out(downloads: Collection[Download], bounds: Bounds, pushes: Pushes, before: Shares, now: float) -> Shares:
    """What each download may take from *now* (epoch seconds); *before* is what was found at the last look.

    The first is the one that must begin first to be there in time. What it leaves goes to the next one, not to all
    alike: what is urgent is finished, and what is not waits.
    """
    behind = before.behind + 1 if pushes.behind_s > BEHIND_S else 0
    suffers = behind > 0 and (behind - 1) % ANEW < PATIENT
    share = max(before.share * CUT, LEAST) if suffers else min(before.share + RISE, 1.0)
    turn = turns(downloads, bounds, before.urgent, now)
    later = frozenset(stem for stem, its in turn.items() if its is Turn.LATER)
    some = [one for one in in_order(downloads, bounds) if one.begun and one.stem not in later]
    in_window = bounds.windows.rate_at(now)
    left = max(bounds.host_bytes - PUSHES * pushes.need_bytes, 0.0)
    if some and share < 1:
        left = min(left, bounds.each_bytes * len(some)) * share
    able = [one for one in some if not (suffers and one.deadline - now > URGENT_S)]
    rates = {one.stem: 0.0 for one in downloads if one.begun} | fair_shares(able, turn, bounds, left, in_window)
    urgent = frozenset(stem for stem, its in turn.items() if its is Turn.URGENT)
    return Shares(rates, share, behind, later, urgent)


def takes(rate: float, other: float, after_s: float) -> bool:
    """Whether a download that has had *rate* for *after_s* seconds takes the *other* rate: a much lower one at once."""
    if other < rate:
        return other < rate * (1 - OTHER) or (other < rate * (1 - OVER) and after_s >= RISE_S)
    return other > rate * (1 + OTHER) and after_s >= RISE_S
