"""The way to Prefect's API: one client for all runs."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from prefect.client.orchestration import PrefectClient
from prefect.context import AsyncClientContext, SyncClientContext

from flows.retry import AWAY
from lectern.errors import TryAgain


@contextmanager
def asking() -> Iterator[None]:
    """A context for calls of Prefect's API and nothing else: raises TryAgain for any of their errors."""
    try:
        yield
    except AWAY as error:
        raise TryAgain(f"Prefect does not answer as it should: {error!r}") from error


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
