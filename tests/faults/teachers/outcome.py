"""What came of a case, in one line, and of all of them."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.faults.teachers.cases import Case


@dataclass
class Outcome:
    """Times are seconds from the strike, or from when somebody was there again.

    The last answer waits for the design, until somebody has taken over and the last class is booked; then it waits for
    the machine, which has work to catch up on. How slow that is, `before_s` and `load` say.
    """

    case: Case
    booked: int
    answered: Counter[int] = field(default_factory=Counter)  # how many were answered so often
    unheard: int = 0
    taken_s: float | None = None  # until somebody took over what the last answers waited for; None for nobody
    booked_s: float = 0.0  # until the last class was booked
    last_s: float = 0.0  # until the last answer
    before_s: float = 0.0  # the longest that a class waited for its answer before the strike
    load: float = 0.0  # the machine's, at the end
    faults: list[str] = field(default_factory=list)

    @property
    def work_s(self) -> float:
        """Of `last_s` the part in which nobody waited for anything any more but the machine."""
        return max(0.0, self.last_s - max(self.taken_s or 0.0, self.booked_s))

    @property
    def often(self) -> str:
        """How many classes were answered how often, and how many nobody heard."""
        unheard = [f"{self.unheard} heard by nobody"] if self.unheard else []
        return ", ".join([*(f"{number} x{times}" for times, number in sorted(self.answered.items())), *unheard])

    @property
    def said(self) -> str:
        """What is wrong with it."""
        return "; ".join(self.faults) or "as it must be"

    def line(self) -> str:
        """In one line."""
        taken = "nothing to take over" if self.taken_s is None else f"taken over after {self.taken_s:.1f} s"
        last = f"last answer after {self.last_s:.1f} s, {self.work_s:.1f} s of it work"
        pace = f"{self.before_s:.1f} s at most before, load {self.load:.0f}"
        return (
            f"{self.case}: {self.booked} booked, answered {self.often}, {taken}, booked until {self.booked_s:.1f} s,"
            f" {last} ({pace}): {self.said}"
        )


def sums(found: Sequence[Outcome]) -> str:
    """What they come to: a slow machine makes the work longer, a timer that is too long what is before it."""
    said = []
    for do in sorted({one.case.do for one in found}):
        its = [one for one in found if one.case.do == do]
        worst = max(its, key=lambda one: one.last_s)
        waited_s = worst.last_s - worst.work_s
        said.append(
            f"{do}: {len(its)} cases; the last answer after {statistics.median(one.last_s for one in its):.1f} s in the"
            f" median, {worst.last_s:.1f} s at worst: {waited_s:.1f} s by design and {worst.work_s:.1f} s of work"
            f" at load {worst.load:.0f}"
        )
    wrong = sum(bool(one.faults) for one in found)
    return "\n".join([*said, f"{len(found)} cases, {wrong} not as they must be"])
