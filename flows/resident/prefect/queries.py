"""Asks Prefect about runs; each function raises TryAgain while Prefect is away."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterIdempotencyKey,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    FlowRunFilterWorkQueueName,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType

from flows.host import NOT_MOVED, lost_tag
from flows.prefect_api import asking

PAGE = 200
"""Number of runs that Prefect gives at a time."""


async def in_state(client: PrefectClient, ids: Sequence[UUID], states: Sequence[StateType]) -> list[FlowRun]:
    """The runs among *ids* that are in one of *states*."""
    wanted = FlowRunFilter(
        id=FlowRunFilterId(any_=list(ids)),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))),
    )
    async with asking():
        return await client.read_flow_runs(flow_run_filter=wanted)


async def is_tagged(client: PrefectClient, tag: str, but: str) -> bool:
    """Whether a run has this *tag*, of those whose state has another name than *but*, however many others there are."""
    wanted = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[tag]),
        state=FlowRunFilterState(name=FlowRunFilterStateName(not_any_=[but])),
    )
    async with asking():
        return bool(await client.read_flow_runs(flow_run_filter=wanted, limit=1))


@asynccontextmanager
async def about_moves() -> AsyncIterator[Callable[[str, str], Awaitable[bool]]]:
    """Asks, by a client of its own, whether a run takes away, or has taken, what a streamer airs under a lease.

    A run that ended without saying that it took nothing may have taken it. The lease is named by its session.
    """
    async with get_client() as client:

        async def is_taken(streamer: str, session: str) -> bool:
            return await is_tagged(client, lost_tag(streamer, session), but=NOT_MOVED)

        yield is_taken


async def named(client: PrefectClient, pool: str, queue: str, states: Sequence[str]) -> list[FlowRun]:
    """All runs of a *queue* whose state has one of these names, however many there are."""
    wanted = FlowRunFilter(
        state=FlowRunFilterState(name=FlowRunFilterStateName(any_=list(states))),
        work_queue_name=FlowRunFilterWorkQueueName(any_=[queue]),
    )
    of_pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    runs: list[FlowRun] = []
    while True:
        async with asking():
            page = await client.read_flow_runs(
                flow_run_filter=wanted, work_pool_filter=of_pool, limit=PAGE, offset=len(runs)
            )
        runs += page
        if len(page) < PAGE:
            return runs


async def begun(client: PrefectClient, keys: Sequence[str]) -> list[FlowRun]:
    """The runs that were created with one of these *keys* and look as if they were about to begin."""
    wanted = FlowRunFilter(
        idempotency_key=FlowRunFilterIdempotencyKey(any_=list(keys)),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING])),
    )
    async with asking():
        return await client.read_flow_runs(flow_run_filter=wanted)
