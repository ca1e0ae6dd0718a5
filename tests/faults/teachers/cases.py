"""The cases: at which point, what is done, to whom, and over what the bookings come."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from tests.faults.points import TEACHERS, Do

By = Literal["channel", "stream"]
NAMES = ("teacher", "teacher2")
SETTINGS = {"SWEEP_INTERVAL_S": "30", "STREAMER_LOST_AFTER_S": "60", "LEASE_S": "45"}
"""Those of the cases; what counts is as an operator has it."""

ADOPTING = "taking over from a dead one"
DOUBLING = ("sent, not noted", "noting what was sent")
"""Points between the sending of an answer and the note of it: there it may come twice."""


@dataclass(frozen=True)
class Case:
    """One case."""

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
    """So many of them, in the order of the *seed*."""
    found = cases()
    random.Random(seed).shuffle(found)
    return found[:number]
