"""When renditions will be there, by all that is to be downloaded before them: what a booking is told, and held to."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

from lectern import formatting
from lectern.decide.bandwidth import AHEAD_S, PUSHES, Bounds, Download, Turn, fair_shares, in_order, turns
from lectern.decide.transcoding import waits
from lectern.i18n import Text
from lectern.model.facts import Needed
from lectern.model.views import StreamerStatus
from lectern.settings import TeacherSettings
from lectern.states import Backend
from lectern.windows import ALWAYS
from lectern.wire.messages import Booking

SURE, SAFE = 1.1, 1.3
"""How many times its bytes a download is expected to take, and how many times it must have time for to be promised.

Connections break off, classes fall behind, and a download takes a higher rate only if that is higher by a third.
"""

CHECK_S, CHECK_BYTES = 1.0, 100e6
"""Seconds, and bytes a second, that beginning and checking a download take, before any were measured."""

MEASURED, ENOUGH, MOST = 50, 5, 0.9
"""Number of the last checks or transcodings that count; that from which they do; the part of them that is quicker."""

NEVER = 4e9
"""When a rendition will be there for which nothing is left: the year 2096, which no class reaches."""


@dataclass(frozen=True)
class Capacity:
    """What downloads may take: the bounds, and the classes whose pushes come first.

    *slow* is how many times as long as expected the checks take.
    """

    bounds: Bounds
    needed: Sequence[Needed] = ()
    slow: float = 1.0

    def checks_s(self, size_bytes: int) -> float:
        """Seconds for which a download of *size_bytes* is begun and checked."""
        return (CHECK_S + size_bytes / CHECK_BYTES) * self.slow

    def pieces(self, now: float) -> Iterator[tuple[float, float, float, float]]:
        """Begin and end of each piece of time from *now* on, and the bytes a second that are left, and in the window.

        What is pushed within AHEAD_S counts, as it does for the governor.
        """
        steps = [(one.start, one.bits_a_second) for one in self.needed]
        steps = sorted([*steps, *((one.until, -one.bits_a_second) for one in self.needed)])
        sums, at_steps = list(accumulate(bits for _, bits in steps)), [at for at, _ in steps]
        turns_at = sorted({turn for at in at_steps for turn in (at - AHEAD_S, at)})
        for begin, end, rate in self.bounds.windows.ahead(now):
            edges = [begin, *turns_at[bisect_right(turns_at, begin) : bisect_left(turns_at, end)], end]
            for at, until in pairwise(edges):
                first, last = bisect_right(at_steps, at), bisect_right(at_steps, at + AHEAD_S)
                need = max([sums[first - 1] if first else 0.0, *sums[first:last]]) / 8
                yield at, until, max(self.bounds.host_bytes - PUSHES * need, 0.0), rate


def slowness(checks: Iterable[tuple[float, int]]) -> float:
    """How many times as long as expected checks take, by the last of them: seconds and bytes of each."""
    expected = Capacity(Bounds(math.inf, math.inf, 1)).checks_s
    factors = sorted(took_s / expected(size_bytes) for took_s, size_bytes in checks)
    return factors[int(MOST * (len(factors) - 1))] if len(factors) >= ENOUGH else 1.0


def arrivals(downloads: Iterable[Download], capacity: Capacity, now: float, times: float = SURE) -> dict[str, float]:
    """When each recording will be in its place (epoch seconds) if nothing else is booked, or NEVER.

    They share what there is as the governor shares it out: the first in order run, and the others wait. One that is
    being checked keeps its place. Each takes so many *times* its bytes.
    """
    bounds = capacity.bounds
    order = in_order(downloads, bounds)
    sizes = {one.stem: one.size_bytes for one in order}
    left, ready, urgent = {one.stem: one.left_bytes * times for one in order}, dict[str, float](), set[str]()
    for begin, until, room, in_window in capacity.pieces(now):
        so_far = [replace(one, came_bytes=one.size_bytes - math.ceil(left.get(one.stem, 0) / times)) for one in order]
        turn, at = turns(so_far, bounds, urgent, begin), begin
        urgent |= {stem for stem, its in turn.items() if its is Turn.URGENT}
        while at < until and left:
            order = [one for one in order if ready.get(one.stem, NEVER) > at] if ready else order
            rates = fair_shares(
                (one for one in order if turn[one.stem] is not Turn.LATER), turn, bounds, room, in_window
            )
            ends = {stem: at + left[stem] / rate for stem, rate in rates.items() if stem in left}
            then = min([until, *ends.values(), *(end for end in ready.values() if end > at)])
            for stem, end in ends.items():
                if end <= then:
                    ready[stem] = then + capacity.checks_s(sizes[stem])
                    del left[stem]
                else:
                    left[stem] -= rates[stem] * (then - at)
            at = then
        if not left:
            break
    return {stem: ready.get(stem, NEVER) for stem in sizes}


@dataclass(frozen=True)
class Ask:
    """A class that needs a rendition which is not there; after *latest* (epoch seconds) it would come too late.

    *push* is what it will need of the network itself. *first*: it was promised by another streamer, and is not refused
    for the sake of other classes.
    """

    class_id: str
    download: Download
    latest: float
    push: Needed
    first: bool = False


@dataclass(frozen=True)
class Forecast:
    """When the rendition of each class that is taken will be there, and of each class that is to be refused.

    *harmed*: the rendition that would come too late because of a class.
    """

    ready_at: Mapping[str, float] = field(default_factory=dict)
    too_late: Mapping[str, float] = field(default_factory=dict)
    harmed: Mapping[str, str] = field(default_factory=dict)


def forecast(asks: Sequence[Ask], under_way: Sequence[Download], capacity: Capacity, now: float) -> Forecast:
    """Which of *asks* can be kept beside the downloads *under_way*; what is in time now, stays in time."""
    taken: list[Ask] = []
    too_late: dict[str, float] = {}
    harmed: dict[str, str] = {}

    def take(group: Sequence[Ask], kept: Mapping[str, float]) -> None:
        both = [*taken, *group]
        found = _at_the_latest(_together(under_way, both), _with(capacity, both), now)
        late = [ask for ask in both if found[ask.download.stem] > ask.latest]
        hurt = [stem for stem, deadline in kept.items() if found[stem] > deadline]
        if not late and not hurt:
            taken.extend(group)
        elif len(group) > 1:
            take(group[: len(group) // 2], kept)
            take(group[len(group) // 2 :], kept)
        else:
            too_late[group[0].class_id] = found[group[0].download.stem]
            if group[0] not in late:
                harmed[group[0].class_id] = (hurt or [late[0].download.stem])[0]

    if promised := [ask for ask in asks if ask.first]:
        take(promised, {})
    if others := [ask for ask in asks if not ask.first]:
        there = _together(under_way, taken)
        before = _at_the_latest(there, _with(capacity, taken), now) if there else {}
        take(others, {one.stem: one.deadline for one in there if before[one.stem] <= one.deadline})
    found = arrivals(_together(under_way, taken), _with(capacity, taken), now) if taken else {}
    return Forecast({ask.class_id: found[ask.download.stem] for ask in taken}, too_late, harmed)


def _at_the_latest(downloads: Sequence[Download], capacity: Capacity, now: float) -> dict[str, float]:
    """When each will be there even if it takes SAFE times its bytes.

    One that takes less may be let wait for the next window, and be late in it: with windows, SURE is tried, too.
    """
    found = arrivals(downloads, capacity, now, SAFE)
    if capacity.bounds.windows.are_always:
        return found
    sure = arrivals(downloads, capacity, now)
    return {stem: max(at, sure[stem]) for stem, at in found.items()}


def _with(capacity: Capacity, asks: Iterable[Ask]) -> Capacity:
    return replace(capacity, needed=[*capacity.needed, *(ask.push for ask in asks)])


def _together(under_way: Iterable[Download], asks: Iterable[Ask]) -> list[Download]:
    found = {one.stem: one for one in under_way}
    for ask in asks:
        one = found.setdefault(ask.download.stem, ask.download)
        found[one.stem] = replace(one, deadline=min(one.deadline, ask.download.deadline))
    return list(found.values())


@dataclass(frozen=True)
class Transcoding:
    """A rendition that is made since *begun*, or waits for its turn, for a class at *start* (epoch seconds)."""

    stem: str
    record_id: int
    backend: Backend | None  # None: an old program's
    start: float = math.inf
    begun: float | None = None


def transcoded_at(
    some: Iterable[Transcoding], took_s: Mapping[Backend | None, Sequence[float]], settings: TeacherSettings, now: float
) -> dict[str, float]:
    """When each rendition will be made (epoch seconds); those of which nobody can say are left out.

    *took_s* are the seconds that the last transcodings by each backend took. Our own servers make the renditions of a
    record together; what waits is taken by the start of its class.
    """
    places = settings.max_ecs_jobs * sum(bool(host.strip()) for host in settings.ecs_hosts.split(","))
    found: dict[str, float] = {}
    records: dict[int, int] = {}  # each in its place in the queue
    for one in sorted(some, key=lambda one: (one.begun is None, one.start)):
        is_ours = one.backend is Backend.ECS
        before = records.setdefault(one.record_id, len(records)) if is_ours else 0
        left_s = _left_s(took_s.get(one.backend, ()), 0.0 if one.begun is None else now - one.begun)
        if left_s is None:
            continue
        if one.begun is not None or not is_ours:
            found[one.stem] = now + left_s
        elif places:
            is_put_off = waits(settings.windows, one.start, settings.ready_before_s, now)
            windows = settings.windows if is_put_off else ALWAYS
            found[one.stem] = windows.ends(left_s * (before // places + 1), now, 1.0)
    return {stem: at for stem, at in found.items() if math.isfinite(at)}


def _left_s(took_s: Sequence[float], gone_s: float) -> float | None:
    """Seconds that most of those still needed which took longer than *gone_s*; None if too few were measured."""
    longer = sorted(one for one in took_s if one > gone_s)
    return longer[int(MOST * (len(longer) - 1))] - max(gone_s, 0.0) if longer and len(took_s) >= ENOUGH else None


def quick_half_s(took_s: Sequence[float]) -> float | None:
    """Seconds within which half of the last transcodings ended; None if too few were measured."""
    return sorted(took_s)[(len(took_s) - 1) // 2] if len(took_s) >= ENOUGH else None


def about(streamers: Iterable[StreamerStatus], length_s: float, now: float) -> float | None:
    """When a recording of *length_s* would be there that is booked *now*, after all others; None if nobody says so.

    It is there already if a streamer has it, and sooner if its class begins before those that wait.
    """
    said = [one.booked_now_s for one in streamers if one.silent_s is None and one.booked_now_s[1] > 0]
    return now + min(none_s + (hour_s - none_s) * length_s / 3600 for none_s, hour_s in said) if said else None


def booked_now(
    booking: Booking, streamers: Iterable[StreamerStatus], now: float, made_at: float | None
) -> tuple[float | None, str]:
    """When the recording of a class that is booked *now* would be there, if anybody says so, and that in a sentence.

    *made_at* is when its rendition will be made (epoch seconds); None if it is there.
    """
    at = about(streamers, booking.end_time - booking.start_time, now if made_at is None else made_at)
    is_rough, start = made_at is not None, booking.start_time
    return at, "" if at is None else will_be_there(booking.stem, at, start, now, is_rough=is_rough)


def will_be_there(stem: str, ready_at: float, start: float, now: float, *, is_rough: bool = False) -> Text:
    """The forecast in a sentence, with the time before or after the *start* of the class.

    *is_rough*: it is not made yet, and nobody knows how large it will be.
    """
    if ready_at >= NEVER:
        return Text("{stem} will not be there: no window and no bandwidth is left for it", stem=stem)
    at = formatting.when(ready_at, now)
    at = Text("about {at}", at=at) if is_rough else at
    if ready_at <= start:
        return Text(
            "{stem} will be there at {at}, {early_s:span} before its start", stem=stem, at=at, early_s=start - ready_at
        )
    return Text(
        "{stem} will be there at {at}, {late_s:span} after its start", stem=stem, at=at, late_s=ready_at - start
    )
