"""The way to Prefect's API: one client for all runs, and one error for whatever a call raises."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import State, StateType
from prefect.context import AsyncClientContext, SyncClientContext
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL
from prefect.states import AwaitingRetry

from lectern.errors import TryAgain

log = logging.getLogger("lectern")
ASK_S = 30.0
"""Seconds that Prefect has to answer a question: while it hangs, its own client would wait for seven minutes."""

AWAY = (httpx.HTTPError, PrefectException, ValueError, LookupError, TypeError, RuntimeError, OSError)
"""What a call of Prefect's API raises if the server is away, refuses, or answers what no Prefect answers: another
program at its address, a page of a proxy, an older or newer version. Only for calls of the API: it is broad."""


@asynccontextmanager
async def asking(within_s: float | None = None) -> AsyncIterator[None]:
    """A context for calls of Prefect's API and nothing else: raises TryAgain for any of their errors, its cause.

    Also if they take longer than *within_s*, or ASK_S.
    """
    try:
        async with asyncio.timeout(ASK_S if within_s is None else within_s):
            yield
    except AWAY as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else repr(error)
        raise TryAgain(
            "Prefect does not answer at {value}: {reason}", value=PREFECT_API_URL.value(), reason=why
        ) from error


@asynccontextmanager
async def best_effort(to_do: str, within_s: float | None = None) -> AsyncIterator[None]:
    """A context as `asking`, for what no work depends on: that it cannot be done is logged, and raised no further."""
    try:
        async with asking(within_s):
            yield
    except TryAgain as error:
        log.warning("prefect: cannot %s: %s", to_do, error.message)


@asynccontextmanager
async def connected() -> AsyncIterator[PrefectClient]:
    """One client that all runs, tasks and artifacts of this context share; otherwise each would open its own."""
    async with AsyncClientContext() as shared:
        # In each run the engine makes a client that blocks, to look for a storage that we do not have.
        unused = SyncClientContext.__var__.set(SyncClientContext())
        try:
            yield shared.client
        finally:
            SyncClientContext.__var__.reset(unused)


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
