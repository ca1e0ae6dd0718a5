"""Runs one sweep at a time, for both roles, and has the times after which classes are checked."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.host import Streamer, Teacher

S = TypeVar("S", Teacher, Streamer)
GRACE_S = 5.0
"""Seconds for which something new is left to the run that began it."""

SWEEP = "a sweep"
"""The entry of `Host.busy` while a sweep is at work; no class has this name."""

LOOK_EVERY_S = 15.0
"""Seconds between two looks at the classes that are about to begin."""

LATE_AFTER_S = 30.0
"""Seconds that a class which was just booked has to get ready before it is called late."""


async def alone(host: S, work: Callable[[S, bool], Awaitable[State[None]]], dry_run: bool) -> State[None]:
    """Sweep, unless another sweep is at work: if Prefect is slow, sweeps would pile up and make it slower."""
    if SWEEP in host.busy:
        return Completed(message="another sweep is at work")
    host.busy.add(SWEEP)
    try:
        return await work(host, dry_run)
    finally:
        host.busy.discard(SWEEP)
