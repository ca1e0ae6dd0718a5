"""The way to Prefect's API: one client for all runs."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from prefect.client.orchestration import PrefectClient
from prefect.context import AsyncClientContext, SyncClientContext

from flows.retry import AWAY
from lectern.errors import TryAgain

ASK_S = 30.0
"""Seconds that Prefect has to answer a question: while it hangs, its own client would wait for seven minutes."""


@contextmanager
def asking() -> Iterator[None]:
    """A context for calls of Prefect's API and nothing else: raises TryAgain for any of their errors."""
    try:
        yield
    except AWAY as error:
        raise TryAgain(f"Prefect does not answer as it should: {error!r}") from error


@asynccontextmanager
async def answered() -> AsyncIterator[None]:
    """A context as `asking`, which raises TryAgain also if Prefect takes longer than ASK_S."""
    with asking():
        async with asyncio.timeout(ASK_S):
            yield


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
