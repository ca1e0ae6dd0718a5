"""How a run has ended, by the result of Prefect's engine, or because it could not begin."""

import asyncio
import logging
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Failed

from flows.prefect_api import asking
from lectern.shown import masked

log = logging.getLogger("lectern")


def cancelled_before(engine: "asyncio.Task[State[Any] | None]") -> str | None:
    """The verdict for a run that was cancelled before the engine began it: the engine leaves it in state Cancelling."""
    found = engine.result() if not engine.cancelled() and engine.exception() is None else None
    return "cancelled" if found is not None and found.is_cancelling() else None


async def unreadable(client: PrefectClient, run: FlowRun, error: Exception) -> State[Any]:
    """Fail a run whose parameters cannot be read; otherwise it would be due again each second.

    Raises TryAgain if Prefect is away.
    """
    why = f"its parameters cannot be read: {masked(str(error))}"
    log.warning("%s: %s", run.name, why)
    state: State[Any] = Failed(message=why)
    async with asking():
        await client.set_flow_run_state(run.id, state, force=True)
    return state
