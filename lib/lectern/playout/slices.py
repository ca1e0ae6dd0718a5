"""Work on many classes, done a little at a time between the ticks of the sending loop."""

import asyncio
import time
from collections.abc import Iterable

SLICE_S = 0.002
"""Seconds for which such work holds the sending loop at once."""


async def in_slices(work: Iterable[object]) -> None:
    """Do *work*, which gets on by a step with each item that it gives."""
    until = time.perf_counter() + SLICE_S
    for _ in work:
        if time.perf_counter() > until:
            await asyncio.sleep(0)
            until = time.perf_counter() + SLICE_S
