"""The cases: at which point, what is done, to whom, and over what the bookings come; and what came of one."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

from tests.faults.points import TEACHERS, Do

By = Literal["channel", "stream"]
NAMES = ("teacher", "teacher2")
SETTINGS = {"SWEEP_INTERVAL_S": "30", "POLL_INTERVAL_S": "1", "STREAMER_LOST_AFTER_S": "60", "LEASE_S": "45"}
"""Those of the cases; what counts is as an operator has it."""

ADOPTING = "taking over from a dead one"
DOUBLING = ("sent, not noted", "noting what was sent")
"""Points between the sending of an answer and the note of it: there it may come twice."""


@dataclass(frozen=True)
class Case:
    point: str
    do: Do
    by: By
    victims: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.do}, {self.by}, {self.point}, {' and '.join(self.victims)}"

    @property
    def survivor(self) -> str | None:
        return next((one for one in NAMES if one not in self.victims), None)


def cases() -> list[Case]:
    dos: tuple[Do, ...] = ("kill", "stop")
    by: tuple[By, ...] = ("channel", "stream")
    victims: tuple[tuple[str, ...], ...] = (*((one,) for one in NAMES), NAMES)
    return [Case(*one) for one in product(TEACHERS, dos, by, victims)]


def chosen(number: int, seed: int) -> Sequence[Case]:
    found = cases()
    random.Random(seed).shuffle(found)
    return found[:number]


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
