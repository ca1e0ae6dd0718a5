"""When a class is pushed, from which position, and for how long."""

from dataclasses import dataclass

SPENT_S = 1.0
"""A recording with less than this left is over: the last frames are not worth a new connection."""

FROM_THE_START_S = 1.0
"""Less late than this, a class begins at its beginning: a seek skips to the next key picture, seconds away."""

MISSING_S = 2.0
"""A class of which fewer seconds were not sent counts as aired whole."""

RUN_GRACE_S = 5.0
"""A class that is due gets its run within so long, unless Prefect is away or slow."""

LAST_MOMENT_S = 1.5
"""A class whose run has not come so shortly before its start is made ready without one."""


@dataclass(frozen=True)
class Push:
    """Push at *at* (epoch seconds), from *position_s* in the recording, for *length_s*."""

    at: float
    position_s: float
    length_s: float


@dataclass(frozen=True)
class Over:
    """Nothing is left to push; *reason* in words."""

    reason: str


def next_push(start: float, end: float, duration_s: float, now: float) -> Push | Over:
    """The next push of a class: at its start, or at once at the clock's position when it should be on air.

    *start*, *end*, *now* are epoch seconds. A recording that is shorter than the class ends the push early.
    """
    if now >= end:
        return Over("the class has ended")
    at = max(start, now)
    late_s = at - start
    position_s = late_s if late_s >= FROM_THE_START_S else 0.0
    left_s = duration_s - position_s
    if left_s <= (SPENT_S if position_s > 0 else 0):
        return Over("the recording is over")
    return Push(at, position_s, min(end - at, left_s))


def how_aired(first: Push, sent_s: float, number: int) -> str:
    """What was aired of a class in *number* pushes that sent *sent_s* in all; *first* is what there was to send."""
    missing_s = first.length_s - sent_s
    if missing_s >= MISSING_S:
        said = f"aired but for {missing_s:.0f} s"
    else:
        said = f"aired from {first.position_s:.0f} s on" if first.position_s > 0 else "aired whole"
    return f"{said}; {number} {'push' if number == 1 else 'pushes'}"


def lead_time(start: float, lead_s: float, now: float) -> float:
    """When the run of a class begins: *lead_s* before it, or now."""
    return max(start - lead_s, now)


def without_run(start: float, idle_since: float, now: float) -> bool:
    """Whether a class that is due (within its lead) and idle since *idle_since* is to be aired without a run."""
    return now - idle_since >= RUN_GRACE_S and now >= start - LAST_MOMENT_S
