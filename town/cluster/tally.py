"""What came of the classes of a trial, counted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from town.recordings import Publish

ANSWERED_S = 60.0
"""Seconds after which a class without an answer is late."""

SLACK_S = 3.0
"""Seconds that pictures may be missing of a class that was aired whole."""


@dataclass(frozen=True)
class Class:
    """A class that the platform has booked; times are epoch seconds."""

    id: str
    start: float
    end: float
    booked_at: float


@dataclass
class Tally:
    """The counts."""

    booked: int
    answered: Counter[int] = field(default_factory=Counter)  # number of classes by their number of answers
    refused: int = 0
    late: list[str] = field(default_factory=list)  # without an answer for too long
    slowest_s: float = 0.0
    on_air: int = 0
    whole: int = 0
    cut: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # promised, and nothing came

    def line(self) -> str:
        """The counts in one line."""
        often = ", ".join(f"{number} x{times}" for times, number in sorted(self.answered.items()) if times)
        slowest = f"slowest {self.slowest_s:.1f} s"
        found = [
            f"{self.booked} booked, answered {often or 'none'} ({self.refused} refused, {slowest})",
            f"{len(self.late)} without an answer",
            f"{self.on_air} on air, {self.whole} aired whole, {len(self.cut)} cut, {len(self.missing)} missing",
        ]
        bad = [*self.late, *self.cut, *self.missing]
        return "; ".join([*found, *([f"look at {', '.join(bad[-3:])}"] if bad else [])])


def tally(
    classes: Sequence[Class],
    answers: Mapping[str, Sequence[Mapping[str, Any]]],
    publishes: Mapping[str, Sequence[Publish]],
    now: float,
) -> Tally:
    """Count what is known at *now*, epoch seconds."""
    found = Tally(len(classes))
    for one in classes:
        heard = answers.get(one.id, ())
        found.answered[len(heard)] += 1
        if not heard:
            found.late += [one.id] if now - one.booked_at > ANSWERED_S else []
            continue
        found.slowest_s = max(found.slowest_s, heard[0]["received_at"] - one.booked_at)
        if heard[0]["result"] != "success":
            found.refused += 1
            continue
        pushes = [push for push in publishes.get(one.id, ()) if push.first_media_at is not None]
        if now < one.end + SLACK_S:
            found.on_air += any(push.ended_at is None for push in pushes)
            continue
        sent_s = sum((push.last_media_at or 0.0) - (push.first_media_at or 0.0) for push in pushes)
        if not pushes:
            found.missing.append(one.id)
        elif sent_s < one.end - one.start - SLACK_S:
            found.cut.append(f"{one.id} ({sent_s:.0f} s)")
        else:
            found.whole += 1
    return found
