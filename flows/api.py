"""The way to Prefect's API: one client for all runs, and quick second tries where its SQLite was busy."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.context import AsyncClientContext, SyncClientContext

BUSY_TRIES = 20
PAUSE_S = 0.03


class QuickRetry(httpx.AsyncBaseTransport):
    """Sends one change at a time, and asks again at once where the server answers 503.

    A Prefect server on SQLite answers so when two writers met; nothing was written. Prefect's own client waits 2 s,
    then 4 s, which is longer than a booking may take; it still does where all our tries were in vain. Our own changes
    wait for each other here, for there they would only fail each other: the server has one writer.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self._one_change = asyncio.Lock()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request, a change up to 20 times within about a second."""
        path = request.url.path
        reads = path.endswith(("/filter", "/count"))
        if request.method == "GET" or reads or path.endswith("/logs/"):
            return await self._inner.handle_async_request(request)
        async with self._one_change:
            for _ in range(BUSY_TRIES - 1):
                response = await self._inner.handle_async_request(request)
                if response.status_code != httpx.codes.SERVICE_UNAVAILABLE or "Retry-After" in response.headers:
                    return response
                await response.aread()
                await response.aclose()
                await asyncio.sleep(PAUSE_S * random.uniform(0.5, 1.5))  # noqa: S311 (no secret)
            return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


@asynccontextmanager
async def connected() -> AsyncIterator[PrefectClient]:
    """One client that all runs, tasks and artifacts of this context share: each would open its own."""
    settings = {"transport": QuickRetry(httpx.AsyncHTTPTransport(retries=3))}
    async with AsyncClientContext(httpx_settings=settings) as shared:
        # Prefect shares a client only with those who ask for the same settings; its own code asks for none.
        shared._httpx_settings = None
        # In each run the engine makes a client that blocks, to look for a storage that we do not have.
        unused = SyncClientContext.__var__.set(SyncClientContext())
        try:
            yield shared.client
        finally:
            SyncClientContext.__var__.reset(unused)
