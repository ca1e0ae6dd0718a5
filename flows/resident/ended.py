"""Reads from the result of Prefect's engine how a run has ended."""

import asyncio
from typing import Any

from prefect.client.schemas.objects import State


def cancelled_before(engine: "asyncio.Task[State[Any] | None]") -> str | None:
    """The verdict for a run that was cancelled before the engine began it: the engine leaves it in state Cancelling."""
    found = engine.result() if not engine.cancelled() and engine.exception() is None else None
    return "cancelled" if found is not None and found.is_cancelling() else None
