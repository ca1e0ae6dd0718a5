"""Tells a run that goes on because its process ended from a run that a person retries."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.states import AwaitingRetry

from flows.prefect_api import asking

DIED, STOPPED = "its process died", "its process was stopped"
"""Why a run goes on: the messages of the states that we set, by which they differ from a person's *Retry*."""


def to_go_on(why: str) -> State[Any]:
    """The state of a run that is to go on at once, because of *why*."""
    return AwaitingRetry(scheduled_time=datetime.now(UTC), message=why)


async def is_retried(run_id: UUID) -> bool:
    """Whether a run has begun for the first time since a person asked for it. Raises TryAgain if Prefect is away."""
    async with asking(), get_client() as client:
        states = sorted(await client.read_flow_run_states(run_id), key=lambda one: one.timestamp)
    asked = [at for at, one in enumerate(states) if one.is_scheduled() and one.message not in (DIED, STOPPED)]
    begun = [one for one in states[asked[-1] :] if one.type is StateType.RUNNING] if asked else []
    return len(begun) == 1
