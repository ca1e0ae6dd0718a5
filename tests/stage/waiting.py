"""Tests wait for conditions, never for time."""

import time
from collections.abc import Callable
from typing import TypeVar

import httpx

T = TypeVar("T")


def wait_until(condition: Callable[[], T], *, timeout_s: float = 60.0, pause_s: float = 0.05, description: str) -> T:
    """Wait until *condition* is true, and return what it returned.

    What takes long is asked for less often, up to five times as seldom: the asking costs the servers, too.
    """
    began = time.monotonic()
    give_up_at = began + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < give_up_at, f"waited {timeout_s:g} s until {description}"
        time.sleep(min(5 * pause_s, max(pause_s, (time.monotonic() - began) / 20)))


def answers(url: str) -> bool:
    """Whether a server answers ``true`` there; not every machine has a curl to ask it with."""
    try:
        return httpx.get(url, timeout=5).text == "true"
    except httpx.HTTPError:
        return False
