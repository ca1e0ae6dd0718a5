"""A token bucket: bounds the number of calls in a second, and at once."""


class Rate:
    """At most *a_second* calls in the long run and *burst* at once; times are monotonic seconds."""

    def __init__(self, a_second: float, burst: int) -> None:
        self._a_second = a_second
        self._burst = burst
        self._left = float(burst)
        self._at: float | None = None

    def take(self, now: float) -> float:
        """Take one call; returns 0, or the seconds to wait if no call is left."""
        if self._at is not None:
            self._left = min(self._left + (now - self._at) * self._a_second, self._burst)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / self._a_second
        self._left -= 1
        return 0.0
