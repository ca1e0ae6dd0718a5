"""The runs that nobody executes: after a crash those of the last process, and those whose creation was not heard of."""

import logging
from datetime import UTC, datetime
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import AwaitingRetry, Cancelled

from flows.resident import questions
from flows.resident.heartbeats import SILENT
from flows.resident.runs import ResidentRuns

log = logging.getLogger("lectern")
LEFT = ["Running", "Pending", "Cancelling", "Retrying", SILENT]


async def adopt(runs: ResidentRuns, pool: str, queue: str) -> int:
    """After a crash: the runs that our queue's last process left are put to AwaitingRetry or Cancelled."""
    ours = runs.alive().keys() | runs.shown
    orphans = [run for run in await questions.named(runs.client, pool, queue, LEFT) if run.id not in ours]
    for run in orphans:
        cancelling = run.state is not None and run.state.is_cancelling()
        state: State[Any] = (
            Cancelled(message="its process died")
            if cancelling
            else AwaitingRetry(scheduled_time=datetime.now(UTC), message="its process died")
        )
        log.warning("%s: its process died; it is put to %s", run.name, state.name)
        await runs.client.set_flow_run_state(run.id, state, force=True)
    return len(orphans)


async def take_unheard(runs: ResidentRuns) -> None:
    """Execute the runs that Prefect created without our hearing of it: else they look alive for ever.

    What they were to handle is handled by now, or is handled here: each flow passes over what is done.
    """
    keys = list(runs.created.unheard)
    if not keys:
        return
    found = await questions.begun(runs.client, keys)
    for key in keys:
        runs.created.unheard.remove(key)
    for run in found:
        log.info("%s: Prefect had created it without our hearing of it", run.name)
        runs.take(run)
