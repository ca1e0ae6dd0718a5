"""How often progress is recorded: seldom, and only if a reader sees a difference."""

import math
import time
from collections.abc import Callable

EVERY_S = 30.0
"""Seconds between two writes. A write for each class on air every few seconds fills a Prefect server."""


class Pace:
    """Says when progress is to be written: at most every 30 seconds, and only if its whole per cent has changed.

    The first value is due at once, and so is 100 %.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._written: int | None = None
        self._at_s = -math.inf

    def due(self, percent: float) -> float | None:
        """The whole per cent to record now, which then counts as recorded; None if there is nothing to record."""
        whole, now_s = math.floor(percent), self._clock()
        if whole == self._written or (whole < 100 and now_s - self._at_s < EVERY_S):
            return None
        self._written, self._at_s = whole, now_s
        return float(whole)
