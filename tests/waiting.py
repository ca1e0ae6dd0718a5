"""Tests wait for conditions, never for time."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[..., T], *arguments: object, timeout_s: float = 60.0, pause_s: float = 0.05, description: str
) -> T:
    """Wait until *condition* of *arguments* is true, and return what it returned."""
    for pause in _pauses(timeout_s, pause_s):
        if found := condition(*arguments):
            return found
        time.sleep(pause)
    raise AssertionError(f"waited {timeout_s:g} s until {description}")


async def async_wait_until(
    condition: Callable[..., T], *arguments: object, timeout_s: float = 60.0, pause_s: float = 0.02, description: str
) -> T:
    """The same while the loop goes on, in which *condition* is asked."""
    for pause in _pauses(timeout_s, pause_s):
        if found := condition(*arguments):
            return found
        await asyncio.sleep(pause)
    raise AssertionError(f"waited {timeout_s:g} s until {description}")


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel *task*, and wait until it has ended by that."""
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


def _pauses(timeout_s: float, pause_s: float) -> Iterator[float]:
    """Seconds to wait after each look. What takes long is looked at more rarely: the looking costs the servers, too."""
    began = time.monotonic()
    while time.monotonic() < began + timeout_s:
        yield min(5 * pause_s, max(pause_s, (time.monotonic() - began) / 20))
    yield 0.0
