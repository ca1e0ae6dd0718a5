"""What the watchers of both roles have in common: sweeps one at a time, and when they look."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.host import Host
from lectern.settings import StreamerSettings, TeacherSettings

S = TypeVar("S", Host[TeacherSettings], Host[StreamerSettings])
GRACE_S = 5.0
"""What is younger is still being done by the run that began it."""

SWEEP = "a sweep"
"""What is busy while one is at work; no class is called so."""

LOOK_EVERY_S = 15.0
"""Seconds between two looks at the classes that are about to begin."""

LATE_AFTER_S = 30.0
"""Seconds that a class which was just booked has to get ready before it is called late."""


async def alone(host: S, work: Callable[[S, bool], Awaitable[State[None]]], dry_run: bool) -> State[None]:
    """Sweep, unless another run does: where Prefect is slow they would pile up, and make it slower."""
    if SWEEP in host.busy:
        return Completed(message="another sweep is at work")
    host.busy.add(SWEEP)
    try:
        return await work(host, dry_run)
    finally:
        host.busy.discard(SWEEP)
