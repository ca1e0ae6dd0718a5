"""Whether a class is ready for its start: checked 60, 15 and 5 minutes before it."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

K = TypeVar("K", bound=Hashable)

CHECKS_S = (3600.0, 900.0, 300.0)
"""Seconds before the start at which a class is checked."""

LOOK_EVERY_S = 15.0
"""Seconds between two looks at the classes that are about to begin."""

LATE_AFTER_S = 30.0
"""Seconds that a class which was just booked has to get ready before it is called late."""

MAX_SKEW_S = 2.0
"""Seconds of difference from the shared clock from which a host begins its classes at the wrong second."""


@dataclass(frozen=True)
class Seen:
    """What was found of a class on its streamer."""

    state_ready: bool
    num_cite: int
    wanted_bytes: int
    found_bytes: int | None  # None if there is no file
    unreadable: str | None  # why the file cannot be read
    damaged: str | None  # why the file is not the recording that was downloaded
    unreachable: str | None  # why the push URL cannot be reached
    skew_s: float | None  # how far this host's clock is off; None if Redis did not answer
    lease: bool  # this streamer holds its lease, so it may push


def check_due(start: float, now: float, done: float | None) -> float | None:
    """Which of `CHECKS_S` is due for a class that begins at *start*; *done* is the last check made. None if none is."""
    left = start - now
    if left < 0:
        return None
    due = [one for one in CHECKS_S if left <= one]
    return due[-1] if due and (done is None or due[-1] < done) else None


def checks_due(starts: Mapping[K, float], now: float, done: Mapping[K, float]) -> dict[K, float]:
    """Which of `CHECKS_S` is due for each class, by its start; *done* has the last check made of each."""
    checks = {key: check_due(start, now, done.get(key)) for key, start in starts.items()}
    return {key: check for key, check in checks.items() if check is not None}


def reds(seen: Seen) -> list[str]:
    """Why the class is not ready, one reason each; empty if it is ready."""
    found: list[str] = []
    if not seen.state_ready:
        found.append("its rendition is not there yet")
    elif seen.found_bytes is None:
        found.append("its file is gone")
    elif seen.found_bytes != seen.wanted_bytes:
        found.append(f"its file has {seen.found_bytes} bytes, not {seen.wanted_bytes}")
    elif seen.unreadable:
        found.append(f"its file cannot be read: {seen.unreadable}")
    elif seen.damaged:
        found.append(f"its file is damaged: {seen.damaged}")
    if seen.num_cite < 1:
        found.append("nothing pins its rendition")
    if seen.unreachable:
        found.append(f"its push URL cannot be reached: {seen.unreachable}")
    if seen.skew_s is not None and abs(seen.skew_s) > MAX_SKEW_S:
        found.append(f"this host's clock is off by {seen.skew_s:.1f} s")
    if not seen.lease:
        found.append("this streamer holds no lease: it does not reach Redis or its teacher")
    return found


def lost_file(seen: Seen) -> str | None:
    """Why the file that a class needs must be downloaded again; None if it need not."""
    if not seen.state_ready:
        return None
    if seen.found_bytes is None:
        return "it is not on the disk"
    if seen.found_bytes != seen.wanted_bytes:
        return f"it has {seen.found_bytes} bytes, not {seen.wanted_bytes}"
    return seen.damaged


def in_minutes(seconds: float) -> str:
    """A time as people read it: in minutes from 90 s on."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def sentence(class_id: str, stem: str, left_s: float, why: Sequence[str]) -> str:
    """The text of the alarm for a class that is not ready, because of *why*."""
    begins = f"begins in {in_minutes(left_s)}" if left_s >= 0 else f"should have begun {in_minutes(-left_s)} ago"
    return f"{class_id} {begins} and is not ready with {stem}: {'; '.join(why)}"
