"""Keeps the stills of classes for some seconds, so that a still is made once however many people look."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from lectern.errors import TryAgain
from lectern.i18n import Text

KEPT_S = 10.0
"""Seconds for which a still is kept, and also the reason why there is none."""

MOST = 500
"""Number of stills that are kept or made at the same time."""


class Stills:
    """The stills that were asked for in the last KEPT_S seconds; *at_once* of them are made at the same time.

    Of many, at most one in *each_s* seconds is made anew: they are kept longer.
    """

    def __init__(self, at_once: int, each_s: float = 0.0) -> None:
        self._gate, self._each_s = asyncio.Semaphore(at_once), each_s
        self._kept: dict[str, tuple[float, asyncio.Task[bytes]]] = {}

    async def of(self, class_id: str, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """The still of a class, which *make* makes unless it is kept; raises LecternError if there is none."""
        now = time.monotonic()
        oldest = now - max(KEPT_S, self._each_s * len(self._kept))
        self._kept = {name: one for name, one in self._kept.items() if _is_kept(*one, now - KEPT_S, oldest)}
        if class_id not in self._kept:
            if len(self._kept) >= MOST:
                raise TryAgain(Text("too many pictures are asked for at once"))
            self._kept[class_id] = now, asyncio.create_task(self._made(make))
        made = self._kept[class_id][1]
        await asyncio.wait({made})  # whoever gives up does not cancel it for the others
        return made.result()

    async def _made(self, make: Callable[[], Awaitable[bytes]]) -> bytes:
        async with self._gate:
            return await make()


def _is_kept(at: float, made: "asyncio.Task[bytes]", oldest_failure: float, oldest: float) -> bool:
    if not made.done():
        return True
    return at > (oldest_failure if made.cancelled() or made.exception() else oldest)
