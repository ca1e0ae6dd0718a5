"""What came of a case, in one line."""

from collections import Counter
from dataclasses import dataclass, field

from tests.faults.teachers.cases import Case


@dataclass
class Outcome:
    """`last_s` are seconds from the strike, or from when somebody was there again, until the last answer."""

    case: Case
    booked: int
    answered: Counter[int] = field(default_factory=Counter)  # how many were answered so often
    unheard: int = 0
    last_s: float = 0.0
    faults: list[str] = field(default_factory=list)

    def line(self) -> str:
        often = ", ".join(f"{number} x{times}" for times, number in sorted(self.answered.items()))
        return (
            f"{self.case}: {self.booked} booked, answered {often}, {self.unheard} heard by nobody, last answer after"
            f" {self.last_s:.1f} s: {'; '.join(self.faults) or 'as it must be'}"
        )
