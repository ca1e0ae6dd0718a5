"""The way to Prefect's API: one client for all runs, and quick second tries where its SQLite was busy."""

import asyncio
import heapq
import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.objects import Artifact, FlowRun, State
from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus, StateAcceptDetails
from prefect.context import AsyncClientContext, SyncClientContext
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_API_URL

from flows.retry import AWAY
from lectern.errors import TryAgain

T = TypeVar("T")
BUSY_TRIES = 20
PAUSE_S = 0.03
AFTER_S = 0.1
"""How a run went is told so much later: another host is about to make the next one, and the two would meet."""

hurried: ContextVar[bool] = ContextVar("hurried", default=False)
"""Whether somebody waits for what is asked of the server."""


@contextmanager
def asking() -> Iterator[None]:
    """Around calls of the API alone; raises TryAgain, whatever is wrong with the answer."""
    try:
        yield
    except AWAY as error:
        raise TryAgain(f"Prefect does not answer as it should: {error!r}") from error


class Turns:
    """One at a time; those who are in a hurry go first."""

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: list[tuple[bool, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    @asynccontextmanager
    async def one(self, *, urgent: bool) -> AsyncIterator[None]:
        """Wait for the turn, and keep it."""
        if self._is_taken:
            turn = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (not urgent, next(self._numbers), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():  # it was ours already
                    self._pass_on()
                raise
        self._is_taken = True
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._is_taken = False


class QuickRetry(httpx.AsyncBaseTransport):
    """Sends one change at a time, and asks again at once where the server answers 503.

    A Prefect server on SQLite answers so when two writers met; nothing was written. Prefect's own client waits 2 s,
    then 4 s, which is longer than a booking may take; it still does where all our tries were in vain. Our own changes
    wait for each other here, for there they would only fail each other: the server has one writer. Who is in a hurry
    goes first.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self._turns = Turns()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request, a change up to 20 times within about a second."""
        path = request.url.path
        reads = path.endswith(("/filter", "/count"))
        if request.method == "GET" or reads or path.endswith("/logs/"):
            return await self._inner.handle_async_request(request)
        async with self._turns.one(urgent=hurried.get()):
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


class ResidentClient(PrefectClient):
    """Asks the server nothing that it has just been told: three requests fewer before the flow of a new run begins.

    What only says how a run went is told a moment later.
    """

    def __init__(self) -> None:
        super().__init__(
            PREFECT_API_URL.value(),
            auth_string=PREFECT_API_AUTH_STRING.value(),
            api_key=PREFECT_API_KEY.value(),
            httpx_settings={"transport": QuickRetry(httpx.AsyncHTTPTransport(retries=3))},
        )
        self._fresh: dict[UUID, FlowRun] = {}
        self.on_telling: Callable[[UUID], None] = lambda _: None
        """Called with the id of a run when it begins to tell what it did, and when it has ended."""

    async def raise_for_api_version_mismatch_once(self) -> None:
        """Ask nothing: a host begins its work although Prefect is away."""

    def know(self, run: FlowRun) -> None:
        """The engine is about to begin *run*, which was created as Running a moment ago, and was never at work."""
        self._fresh[run.id] = run

    def forget(self, run_id: UUID) -> None:
        """The run has ended, or never begun."""
        self._fresh.pop(run_id, None)

    async def update_flow_run(self, flow_run_id: UUID, *args: Any, **changes: Any) -> httpx.Response:  # noqa: ANN401 (its own)
        """As Prefect's; but a new run is not told to have no retries, which it has not anyway."""
        policy = changes.get("empirical_policy")
        if flow_run_id in self._fresh and policy is not None and not policy.retries:
            return httpx.Response(httpx.codes.NO_CONTENT)
        return await super().update_flow_run(flow_run_id, *args, **changes)

    async def set_flow_run_state(
        self, flow_run_id: UUID | str, state: State[T], force: bool = False
    ) -> OrchestrationResult[T]:
        """As Prefect's; but a new run is Running already, and the engine's word of an end has time."""
        fresh = self._fresh.get(UUID(str(flow_run_id)))
        if fresh is not None and fresh.state is not None and state.is_running():
            return OrchestrationResult(
                state=fresh.state, status=SetStateStatus.ACCEPT, details=StateAcceptDetails(type="accept_details")
            )
        if state.is_final() and not force:
            self.on_telling(UUID(str(flow_run_id)))
            await asyncio.sleep(AFTER_S)
        return await super().set_flow_run_state(flow_run_id, state, force)

    async def create_artifact(self, artifact: ArtifactCreate) -> Artifact:
        """As Prefect's; but it has time."""
        if artifact.flow_run_id is not None:
            self.on_telling(artifact.flow_run_id)
        await asyncio.sleep(AFTER_S)
        return await super().create_artifact(artifact)

    async def read_flow_run(self, flow_run_id: UUID) -> FlowRun:
        """As Prefect's; but the engine reads a new run, as it begins, as this process has it."""
        fresh = self._fresh.pop(flow_run_id, None)
        return fresh if fresh is not None else await super().read_flow_run(flow_run_id)


class _Shared(AsyncClientContext):
    def __init__(self, client: PrefectClient) -> None:
        # Prefect shares a client only with those who ask for the same settings of httpx; its own code asks for none.
        super(AsyncClientContext, self).__init__(client=client)


@asynccontextmanager
async def connected() -> AsyncIterator[ResidentClient]:
    """One client that all runs, tasks and artifacts of this context share: each would open its own."""
    client = ResidentClient()
    async with _Shared(client):
        # In each run the engine makes a client that blocks, to look for a storage that we do not have.
        unused = SyncClientContext.__var__.set(SyncClientContext())
        try:
            yield client
        finally:
            SyncClientContext.__var__.reset(unused)
