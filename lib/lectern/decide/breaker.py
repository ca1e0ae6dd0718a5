"""Whether a service that failed again and again is asked at all, while there is another way."""

from dataclasses import dataclass

THRESHOLD = 5
"""Number of failures in a row after which the service is not asked for a while."""

FIRST_PAUSE_S = 15.0
LONGEST_PAUSE_S = 240.0
PROBE_S = 30.0
"""Seconds after a trial request in which no other request is allowed, unless its result comes sooner."""


@dataclass(frozen=True)
class Breaker:
    """What is remembered of a service; times are epoch seconds."""

    failures: int = 0
    closed_until: float = 0.0

    def lets(self, now: float) -> bool:
        """Whether a request may be made at *now*; a pause that ends too late is of before the clock was set back."""
        return not 0 < self.closed_until - now <= 2 * LONGEST_PAUSE_S

    def asked(self, now: float) -> "Breaker":
        """Record that a request is made; after a pause it is the only one until its result is known."""
        return Breaker(self.failures, now + PROBE_S) if self.failures >= THRESHOLD else self

    def failed(self, now: float) -> "Breaker":
        """Record a failure; the pause doubles each time."""
        failures = self.failures + 1
        if failures < THRESHOLD:
            return Breaker(failures, self.closed_until)
        doubled = min(failures - THRESHOLD, 16)
        return Breaker(failures, now + min(FIRST_PAUSE_S * 2**doubled, LONGEST_PAUSE_S))
