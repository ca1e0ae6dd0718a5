"""Creates runs of this host's deployments; if Prefect forgets the deployments, their ids must be read again."""

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentFlowRunCreate
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.states import to_state_create

from flows.background_runs import NewRun
from flows.prefect_api import asking
from lectern.errors import TryAgain
from lectern.i18n import Text
from lectern.timing import backoff_s

JSON = {"content-type": "application/json"}
BUSY_TRIES, BUSY_PAUSE_S, BUSY_MOST_S = 16, 0.05, 0.4
"""Tries while Prefect's database is locked; with longer pauses Prefect idled for half of the time after a storm."""

CREATE_S = 5.0
"""Seconds after which a Prefect server that has not taken a run counts as away."""

BULK = 25
"""Number of runs that are created in one request: a server on SQLite blocks all other writers meanwhile."""

HOST = "host:"
"""The prefix of the tag by which a run of a shared queue names the host that executes it."""

REFUSES = frozenset({400, 409, 413, 422, 500})
"""The status codes with which the API refuses a request for good."""

UNHEARD_KEPT = 200
"""Number of runs that are looked for later because Prefect did not say whether it has created them."""


def host_tag(name: str) -> str:
    """The tag of the runs of the host *name*."""
    return f"{HOST}{name}"


class Creation:
    """Knows the ids of the deployments, and creates their runs."""

    def __init__(self, client: PrefectClient) -> None:
        self.client = client
        self.outdated = asyncio.Event()
        """Set if Prefect does not know the deployments, whose ids must be read again."""

        self.unheard: deque[str] = deque(maxlen=UNHEARD_KEPT)
        """Keys of runs that Prefect may have created, and that no process executes."""

        self.tags: tuple[str, ...] = ()
        """The tags of each new run; set before the first run is created."""

        self._ids: dict[str, UUID] = {}
        self._flows: dict[UUID, str] = {}

    def know(self, deployments: Mapping[str, UUID]) -> None:
        """Take in the ids of our deployments, without which no run can begin."""
        self.outdated.clear()
        self._ids = dict(deployments)
        self._flows = {id_: flow for flow, id_ in deployments.items()}

    def deployment(self, flow: str) -> UUID:
        """The id of a flow's deployment; raises TryAgain while none is known."""
        if flow not in self._ids:
            raise TryAgain(Text("{flow}: Prefect was not reached yet", flow=flow))
        return self._ids[flow]

    def flow(self, deployment: UUID) -> str | None:
        """The flow of a deployment; None if it is not ours."""
        return self._flows.get(deployment)

    def failed(self, what: str, error: BaseException) -> TryAgain:
        """The error to raise if the API failed with *error*; unknown deployments are read again from now on."""
        status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
        if status != httpx.codes.NOT_FOUND and not isinstance(error, ObjectNotFound):
            return TryAgain(Text("{what}: Prefect does not take the run: {error}", what=what, error=repr(error)))
        self._ids = {}
        self.outdated.set()
        return TryAgain(Text("{what}: Prefect does not know its deployment; all are read again", what=what))

    async def create(self, run: NewRun, state: State[Any]) -> FlowRun:
        """Create *run* in *state*, or find the run that has its key already. Raises TryAgain if Prefect is away."""
        made = await self._created(run, state)
        while _is_outdated(run, made):  # each try finds the same runs, so two tries do not create two
            run = replace(run, key=f"{run.key}+")
            made = await self._created(run, state)
        return made

    async def _created(self, run: NewRun, state: State[Any]) -> FlowRun:
        # Prefect's client would retry for more than a minute; our callers keep their work, and retry sooner.
        try:
            async with asking(CREATE_S):
                (answer,) = await self.bulk(run.flow, [wanted(run, state)])
                if isinstance(answer, str):
                    raise TryAgain(Text("{what}: Prefect does not take the run: {error}", what=run.name, error=answer))
                return await self.client.read_flow_run(answer)
        except TryAgain as error:
            cause = error.__cause__
            if cause is None:  # its own
                raise
            is_unheard = run.key is not None and state.is_pending() and not isinstance(cause, httpx.HTTPStatusError)
            if is_unheard and run.key not in self.unheard:  # each try has the same key
                self.unheard.append(str(run.key))
            raise self.failed(run.name, cause) from cause

    async def bulk(self, flow: str, runs: Sequence[Mapping[str, Any]]) -> list[UUID | str]:
        """Create runs of one flow in one request: the id of each, or why there is none. Raises what the client raises.

        A server on SQLite creates nothing if two writers meet, and says so; it is asked again at once. A request
        for a single run would be answered by 503, after which Prefect's client waits for seconds.
        """
        path: Any = f"/deployments/{self.deployment(flow)}/create_flow_run/bulk"
        # Our own parameters fit; to see that, Prefect would check the schema itself, for each run again.
        unchecked = {"enforce_parameter_schema": False}
        tagged = [{**run, **unchecked, "tags": [*run.get("tags", ()), *self.tags]} for run in runs]
        content = json.dumps(tagged, default=str).encode(errors="replace")
        for tries in range(BUSY_TRIES):
            response = await self.client.request("POST", path, content=content, headers=JSON)
            results = response.raise_for_status().json()["results"]
            failed = [str(result["error"])[:500] for result in results if result["status"] != "CREATED"]
            if not any("locked" in result for result in failed):
                return [
                    UUID(result["flow_run_id"]) if result["status"] == "CREATED" else failed[0] for result in results
                ]
            await asyncio.sleep(backoff_s(tries, BUSY_PAUSE_S, BUSY_MOST_S, jitter=0.5))
        raise TryAgain(Text("the database of the Prefect server is locked"))


def _is_outdated(run: NewRun, made: FlowRun) -> bool:
    """Whether the run that has the key of *run* has completed, or was cancelled because it was outdated."""
    state = made.state
    if run.outdated is None or state is None:
        return False
    return state.is_completed() or (state.is_cancelled() and state.message == run.outdated)


def wanted(run: NewRun, state: State[Any]) -> dict[str, Any]:
    """*run* in *state*, as `Creation.bulk` takes it."""
    asked = DeploymentFlowRunCreate(
        name=run.name,
        parameters=dict(run.parameters),
        tags=list(run.tags),
        state=to_state_create(state),
        idempotency_key=run.key,
    )
    return asked.model_dump(mode="json", exclude_unset=True)
