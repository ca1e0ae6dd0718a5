"""Backoff: how long to wait before a broken session is replaced by a new one."""

import random

FIRST_S, LAST_S = 0.1, 5.0


class Backoff:
    """The first retry after a good session is immediate; each failure doubles the pause, with jitter, to LAST_S."""

    def __init__(self, chance: random.Random) -> None:
        self.failures = 0
        self._chance = chance
        self._retry_at = 0.0

    def is_due(self, now: float) -> bool:
        """Whether the pause is over at *now*."""
        return now >= self._retry_at

    def failed(self, now: float) -> float:
        """Record a failed try, or the end of a session; returns the pause in seconds."""
        pause_s = min(FIRST_S * 2 ** (self.failures - 1), LAST_S) if self.failures else 0.0
        pause_s *= 1 + self._chance.random() / 2
        self.failures += 1
        self._retry_at = now + pause_s
        return pause_s

    def reset(self) -> None:
        """Forget the failures: the next retry is immediate."""
        self.failures, self._retry_at = 0, 0.0
