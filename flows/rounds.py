"""Whether the loops of a process still go round: each loop reports its rounds, and health asks for them."""

import time

from lectern.effects.redis.hearing import heed_cancel


class Rounds:
    """When each loop last came round."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}  # monotonic
        self._fails: dict[str, float] = {}  # since when, monotonic

    def come(self, loop: str) -> None:
        """Say that *loop* has come round; raises CancelledError if it was cancelled and the cancel was swallowed.

        In Python 3.11 ``asyncio.wait_for`` swallows a cancel when what it waits for is done in the same tick, and the
        client of Redis calls it for each command: a loop around Redis would go on for ever.
        """
        heed_cancel()
        self.note(loop)

    def note(self, loop: str) -> None:
        """Say only that *loop* has come round: in Python 3.11 a TaskGroup in it can leave a cancel behind."""
        self._at[loop] = time.monotonic()

    def fails(self, loop: str, since: float) -> None:
        """Say that *loop* has done nothing but fail *since* then (monotonic); it comes round each time it is tried."""
        self._fails[loop] = since

    def works(self, loop: str) -> None:
        """Say that *loop* fails no longer."""
        self._fails.pop(loop, None)

    def failing(self, limit_s: float) -> dict[str, float]:
        """The loops that have failed for more than *limit_s*, and for how long."""
        now = time.monotonic()
        return {loop: now - since for loop, since in self._fails.items() if now - since > limit_s}

    def late(self, limit_s: float) -> dict[str, float]:
        """The loops whose last round began more than *limit_s* ago, and how long ago."""
        now = time.monotonic()
        return {loop: now - at for loop, at in self._at.items() if now - at > limit_s}
