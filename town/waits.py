"""Waits of the demo: each goes on while something moves, says what it waits for, and ends in words if nothing does."""

import asyncio
import inspect
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

STILL_S = 300.0
"""Seconds in which nothing moved, after which a wait is given up."""

TELL_AFTER_S, TELL_EVERY_S = 5.0, 15.0
"""Seconds after which a wait is told to people; seconds between two lines where there is no terminal."""

BUSY_LATE_S, BUSY_LOAD = 0.5, 4.0
"""Of a machine that is too busy for the demo: seconds that a timer rings late; its load for each of its processors."""

_LOOK_S = 1.0
_RING_S, _LOADS_KEPT = 0.25, 40_000
_LINE_CHARACTERS = 120


class GaveUp(Exception):
    """A wait ended without what it was for; the text says what that was, why it ended, and what was seen last."""


@dataclass(frozen=True)
class Load:
    """How busy the machine is: its load average, and how late a timer of this process rings."""

    average: float
    late_s: float

    @property
    def is_too_high(self) -> bool:
        """Whether the machine, not lectern, may be to blame for what came late."""
        return self.late_s >= BUSY_LATE_S or self.average >= BUSY_LOAD * (os.cpu_count() or 1)

    def __str__(self) -> str:
        load = f"the load of the machine was up to {self.average:.0f} on {os.cpu_count()} processors"
        return f"{load}, and a timer of the demo rang up to {self.late_s:.1f} s late"


@dataclass(frozen=True)
class Sight:
    """What is seen of something that is waited for: it moves if *moved* differs from the last look's."""

    moved: object
    said: str = ""
    has_ended: bool = False


@dataclass
class _Wait:
    what: str
    began: float
    said: str = ""

    def __str__(self) -> str:
        said = f"; last said: {self.said[:_LINE_CHARACTERS]}" if self.said else ""
        return f"waiting for {self.what}, {time.monotonic() - self.began:.0f} s{said}"


@dataclass
class Waits:
    """The waits that are under way, and what the machine was like meanwhile."""

    still_s: float = STILL_S
    _under_way: list[_Wait] = field(default_factory=list)
    _loads: deque[tuple[float, Load]] = field(default_factory=partial(deque, maxlen=_LOADS_KEPT))  # at epoch seconds

    async def watch(self) -> None:
        """Note the load of the machine, until cancelled."""
        while True:
            due = time.monotonic() + _RING_S
            await asyncio.sleep(_RING_S)
            self._loads.append((time.time(), Load(os.getloadavg()[0], time.monotonic() - due)))

    def load_since(self, began_at: float) -> Load:
        """The most that the machine was busy since *began_at* (epoch seconds)."""
        loads = [load for at, load in self._loads if at >= began_at] or [Load(os.getloadavg()[0], 0.0)]
        return Load(max(one.average for one in loads), max(one.late_s for one in loads))

    def lines(self) -> list[str]:
        """What is waited for by now for longer than a moment."""
        return [str(one) for one in self._under_way if time.monotonic() - one.began >= TELL_AFTER_S]

    async def until(
        self,
        condition: Callable[[], bool | Awaitable[bool]],
        what: str,
        look: Callable[[], Sight],
        *,
        latest: float | None = None,
    ) -> None:
        """Wait for *condition*. Raises GaveUp if it is not so by *latest* (epoch seconds), or if nothing moves."""
        with self._told(what) as wait:
            seen, moved_at, next_look = look(), time.monotonic(), 0.0
            while not await _is(condition):
                if (now := time.monotonic()) >= next_look:
                    before, seen, next_look = seen, look(), now + _LOOK_S
                    moved_at = now if seen.moved != before.moved else moved_at
                    wait.said = seen.said
                if latest is not None and time.time() > latest:
                    raise GaveUp(_sentence(wait, "it did not come in time"))
                if seen.has_ended and not await _is(condition):
                    raise GaveUp(_sentence(wait, "its process has ended"))
                if now - moved_at > self.still_s:
                    raise GaveUp(_sentence(wait, f"nothing moved for {self.still_s:g} s"))
                await asyncio.sleep(0.1)

    @contextmanager
    def _told(self, what: str) -> Iterator[_Wait]:
        wait = _Wait(what, time.monotonic())
        self._under_way.append(wait)
        try:
            yield wait
        finally:
            self._under_way.remove(wait)


def size(*paths: Path) -> int:
    """The bytes of these files, and of those in these folders; what is gone meanwhile counts nothing."""
    total = 0
    for path in paths:
        for one in [path, *path.rglob("*")] if path.is_dir() else [path]:
            try:
                total += one.stat().st_size
            except OSError:
                continue
    return total


async def _is(condition: Callable[[], bool | Awaitable[bool]]) -> bool:
    found = condition()
    return await found if inspect.isawaitable(found) else found


def _sentence(wait: _Wait, why: str) -> str:
    waited = f"waited {time.monotonic() - wait.began:.0f} s for {wait.what}: {why}"
    return f"{waited}. Last said: {wait.said}" if wait.said else waited
