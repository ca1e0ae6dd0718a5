"""How long to wait, for what in spite of a cancel, and how often something may happen; times are monotonic seconds."""

import asyncio
import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
FIRST_S, MOST_S = 0.5, 10.0

NAMES = 2_000
"""Number of names of a `Rate` or a `Throttle` that are remembered; the one that came least recently is forgotten."""


def backoff_s(tries: int, first_s: float | None = None, most_s: float = MOST_S, *, jitter: float = 0.2) -> float:
    """Seconds to wait after *tries* failures in a row, counted from 0: each time twice as long, up to *most_s*.

    The wait varies by up to the fraction *jitter*, so that callers that failed together do not retry together.
    """
    first_s = FIRST_S if first_s is None else first_s
    return min(first_s * 2.0 ** min(tries, 30), most_s) * random.uniform(1 - jitter, 1 + jitter)  # noqa: S311 (no secret)


async def comes(event: asyncio.Event, within_s: float) -> bool:
    """Wait for *event* for at most *within_s*; returns whether it came."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            return await event.wait()
    return False


async def shielded(work: Coroutine[object, object, T]) -> T:
    """Await *work*, which must be bounded, to its end even if we are cancelled; then pass the cancellation on."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from task.exception()
    return task.result()


def check_cancelled() -> None:
    """Raise CancelledError if this task was cancelled: Redis' client can lose a cancel that comes with an answer."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Rate:
    """A token bucket for each name: *burst* calls at once, and *a_second* in the long run."""

    def __init__(self, burst: float, a_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._a_second, self._clock = burst, a_second, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # calls that were left, and at what time

    def take(self, name: str = "") -> float:
        """Take one call of *name*; returns 0, or the seconds to wait if no call is left."""
        now = self._clock()
        left, at = self._left.get(name, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._a_second)
        self._left[name] = left - (left >= 1), now
        self._left.move_to_end(name)
        if len(self._left) > NAMES:
            self._left.popitem(last=False)
        return max(0.0, 1 - left) / self._a_second


class Throttle:
    """Lets each name pass at most once in a given time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at: OrderedDict[str, float] = OrderedDict()

    def due(self, name: str, every_s: float) -> bool:
        """Whether *name* may pass; it does not pass yet."""
        return self._clock() - self._at.get(name, -math.inf) >= every_s

    def passes(self, name: str) -> None:
        """Note that *name* passes now."""
        self._at[name] = self._clock()
        self._at.move_to_end(name)
        if len(self._at) > NAMES:
            self._at.popitem(last=False)

    def take(self, name: str, every_s: float) -> bool:
        """Whether *name* may pass; if so, it does."""
        if is_due := self.due(name, every_s):
            self.passes(name)
        return is_due

    def forget(self, name: str = "") -> None:
        """Let *name* pass again at once, and all names that begin so."""
        self._at = OrderedDict((one, at) for one, at in self._at.items() if not one.startswith(name))
