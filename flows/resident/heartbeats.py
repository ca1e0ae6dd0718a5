"""Heartbeats of runs: this process reports which of its runs are alive; the server marks a run that falls silent."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from flows.host import NOT_MOVED
from flows.prefect_api import best_effort
from lectern.run_records import SHOWN

log = logging.getLogger("lectern")
ALIVE = "lectern.run.alive"
SILENT = "Silent"
"""The name of the state (type Crashed) of a run whose process sends no more heartbeats."""

NOT_AT_WORK = frozenset({"Completed", "Failed", "Cancelled", "Crashed", "Cancelling", "AwaitingRetry", "Paused"})
NOT_AT_WORK |= {"Suspended", SILENT, NOT_MOVED}
"""States in which no run is at work. The server writes down each expected event singly: expecting also the events of
new runs kept it from taking them; so did the events of runs that the recorder creates in their final state."""

NAME = "lectern: silent runs"
"""The name of the automation by which the server sees that a run falls silent."""

MESSAGE = "prefect.state-message"
"""The label of an event that has the message of the run's state."""

ASK_S = 10.0
"""Seconds that Prefect has to take a heartbeat: less than a heartbeat takes to be missed, so that the next one comes in
time."""

BEATS = 3
"""Number of missing heartbeats in a row after which a run is shown as *Silent*."""


async def beat(client: PrefectClient, active: Callable[[], Mapping[UUID, str]], every_s: float) -> None:
    """Say every *every_s* seconds that the *active* runs (name by id) are alive, in one request."""
    while True:
        await asyncio.sleep(every_s)
        runs = active()
        if not runs:
            continue
        async with best_effort(f"take the heartbeats of {len(runs)} runs", ASK_S):
            await client.request("POST", "/events", json=[_event(id_, name) for id_, name in runs.items()])


def _event(run_id: UUID, name: str) -> dict[str, object]:
    return {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": ALIVE,
        "resource": {**_run(f"{run_id}"), "prefect.resource.name": name, MESSAGE: "alive"},
    }


def _run(id_: str) -> dict[str, str]:
    return {"prefect.resource.id": f"prefect.flow-run.{id_}"}


def automation(every_s: float) -> AutomationCore:
    """The automation by which the server sets a run to *Silent* after three missed heartbeats."""
    silence = max(timedelta(seconds=BEATS * every_s), timedelta(seconds=10))  # Prefect's least
    return AutomationCore(
        name=NAME,
        description="A run whose process says nothing any more becomes Silent; its host takes it up when it starts.",
        enabled=True,
        trigger=EventTrigger(
            after={ALIVE},
            expect={ALIVE, *(f"prefect.flow-run.{state}" for state in NOT_AT_WORK)},
            for_each={"prefect.resource.id"},
            match={**_run("*"), MESSAGE: f"!{SHOWN}"},
            posture=Posture.Proactive,
            threshold=1,
            within=silence,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name=SILENT,
                message=f"nothing was heard of it for {silence.total_seconds():g} s: see whether its host is alive",
            )
        ],
    )


async def is_missing(client: PrefectClient, every_s: float) -> bool:
    """Whether the server lacks the automation, or has it in another form."""
    wanted = automation(every_s)
    there = await client.read_automations_by_name(wanted.name)
    return not any(one.trigger == wanted.trigger and one.actions == wanted.actions for one in there)


async def make(client: PrefectClient, every_s: float) -> None:
    """Create or update the automation; delete the one that passed alarms on for an earlier build."""
    for one in await client.read_automations_by_name("lectern: alarms"):
        await client.delete_automation(one.id)
    if not await is_missing(client, every_s):
        return
    wanted = automation(every_s)
    if there := await client.read_automations_by_name(wanted.name):
        await client.update_automation(there[0].id, wanted)
    else:
        await client.create_automation(wanted)
