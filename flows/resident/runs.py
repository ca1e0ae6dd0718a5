"""The runs of one host: created through Prefect's API, executed in this process, cancelled, taken up again."""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from prefect import runtime
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.flow_engine import run_flow_async
from prefect.flows import Flow
from prefect.states import AwaitingRetry, Cancelled, Running, Scheduled

from flows import tries
from flows.host import NOT_MOVED, Host, current, lost_tag, run_name
from flows.resident import questions
from flows.resident.prefect_client import ResidentClient, asking, hurried
from flows.resident.slots import Slots
from flows.retry import AWAY
from lectern.errors import TryAgain

log = logging.getLogger("lectern")
WATCH_S = 2.0
"""How often the server is asked whether somebody cancelled one of our runs."""

CREATE_S = 10.0
"""A Prefect server that takes no run within so long is away."""

UNHEARD_KEPT = 200
"""Number of runs that are looked for later because Prefect did not say whether it has created them."""

ONLY_WATCHES = frozenset({"broadcast"})
"""Flows whose runs do nothing but watch: the end of the process waits for none of them."""

ENDING = [StateType.CANCELLING, StateType.CANCELLED]


class Refused(TryAgain):
    """Prefect answers, and does not take this run: it may take another one."""


def _is_unknown(error: Exception) -> bool:
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
    return status == httpx.codes.NOT_FOUND or isinstance(error, ObjectNotFound)


@dataclass
class _Active:
    task: "asyncio.Task[State[Any] | None]"
    name: str
    only_watches: bool = False
    verdict: str | None = None  # why we cancel it: "cancelled" or "drained"


class ResidentRuns:
    """The runs of one host: created through the API, executed here as asyncio tasks."""

    def __init__(self, client: ResidentClient, flows: Mapping[str, Flow[..., Any]]) -> None:
        self.client = client
        self._by_name = flows
        self._deployments: dict[str, UUID] = {}
        self._flows: dict[UUID, Flow[..., Any]] = {}
        self._active: dict[UUID, _Active] = {}
        self._slots = Slots()
        client.on_telling = self._slots.tells
        self._draining = False
        self.outdated = asyncio.Event()
        """Set where Prefect does not know the deployments, whose ids must be read anew."""

        self.unheard: deque[str] = deque(maxlen=UNHEARD_KEPT)
        """Keys of runs that Prefect may have created, which then nobody executes."""

        # Runs begin in this context, not in that of the run which started them: they are nobody's subflows.
        self._context = copy_context()
        self.host: Host[Any] | None = None

    def know(self, deployments: Mapping[str, UUID]) -> None:
        """The ids of our deployments; before them, no run can begin."""
        self.outdated.clear()
        self._deployments = dict(deployments)
        self._flows = {id_: self._by_name[name] for name, id_ in deployments.items()}

    def draining(self) -> bool:
        """Whether the process is going down."""
        return self._draining

    def was_cancelled(self, run_id: str) -> bool:
        """Whether `end` was called for this run, which is at work here."""
        active = self._active.get(UUID(run_id))
        return active is not None and active.verdict == "cancelled"

    async def start(
        self, flow: str, parameters: Mapping[str, Any], *, name: str, tags: Sequence[str] = (), key: str | None = None
    ) -> str:
        """Create a run in state Running and execute it here, at once; raises TryAgain where Prefect is away."""
        if self._draining:
            raise TryAgain(f"{name}: the process is going down")
        self._check(name)
        hurry = hurried.set(True)  # somebody waits for what a new run does, and nobody for how the last one ended
        try:
            run = await self._create(flow, parameters, Running(), name=name, tags=tags, key=key)
        finally:
            hurried.reset(hurry)
        self.take(run)
        return str(run.id)

    async def _create(
        self,
        flow: str,
        parameters: Mapping[str, Any],
        state: State[Any],
        *,
        name: str,
        tags: Sequence[str],
        key: str | None,
    ) -> FlowRun:
        # Prefect's client would try for more than a minute; our callers keep what they have, and come again sooner.
        try:
            async with asyncio.timeout(CREATE_S):
                return await self.client.create_flow_run_from_deployment(
                    self._deployments[flow],
                    parameters=dict(parameters),
                    name=name,
                    tags=list(tags),
                    state=state,
                    idempotency_key=key,
                )
        except AWAY as error:
            if _is_unknown(error):
                self._deployments = {}
                self.outdated.set()
                raise TryAgain(f"{name}: Prefect does not know its deployment, all are read anew") from error
            said = f"{name}: Prefect does not take the run: {error!r}"
            if isinstance(error, httpx.HTTPStatusError):
                raise Refused(said) from error
            if key is not None and state.is_running():
                self.unheard.append(key)
            raise TryAgain(said) from error

    def take(self, run: FlowRun) -> None:
        """Execute a run in the background; one that is at work here already is passed over."""
        if self._draining or run.id in self._active:
            return
        task = asyncio.create_task(self.execute(run), context=self._context.copy())
        self._slots.take(run.id, run.deployment_id, task)

    async def room(self, flow: str, at_work: int, telling: int, patience_s: float) -> None:
        """Wait until another run of *flow* may begin, as ``Slots.room`` says."""
        await self._slots.room(self._deployments.get(flow), at_work, telling, patience_s)

    def _check(self, name: str) -> None:
        if not self._deployments:
            raise TryAgain(f"{name}: Prefect was not reached yet")

    async def schedule(
        self, flow: str, parameters: Mapping[str, Any], *, name: str, tags: Sequence[str], key: str, at: float
    ) -> str:
        """Create a run that begins at *at*; the same *key* again gives the same run."""
        self._check(name)
        state: State[Any] = Scheduled(scheduled_time=datetime.fromtimestamp(at, UTC))
        return str((await self._create(flow, parameters, state, name=name, tags=tags, key=key)).id)

    def end(self, run_id: str, reason: str) -> bool:
        """Cancel a run that is at work here; False where it is not."""
        active = self._active.get(UUID(run_id))
        if active is None:
            return False
        if active.verdict is None:  # once: a second cancel would cut off what the first one has begun to clear up
            active.verdict = "cancelled"
            active.task.cancel(reason)
        return True

    async def cancel(self, run_id: str, reason: str) -> None:
        """Cancel a run: end it if it is at work here, take it off the timetable if it has not begun.

        Raises TryAgain where Prefect is away.
        """
        if self.end(run_id, reason):
            return
        with asking(), suppress(ObjectNotFound):
            await self.client.set_flow_run_state(UUID(run_id), Cancelled(message=reason), force=True)

    async def execute(self, run: FlowRun) -> None:
        """Run the flow of *run* to its end, say how it ended where the engine can not, and count what it left."""
        if run.id in self._active or run.state is None or run.state.is_final() or run.deployment_id is None:
            return
        flow = self._flows.get(run.deployment_id)
        if flow is None:
            log.error("%s: its deployment is not one of this host", run.name)
            return
        engine = asyncio.create_task(self._engine(flow, run), context=self._context.copy())
        active = _Active(engine, run.name, flow.name in ONLY_WATCHES)
        self._active[run.id] = active
        try:
            await asyncio.wait({active.task})
        finally:
            del self._active[run.id]
            self.client.forget(run.id)
        if active.verdict is not None:
            log.info("%s: %s", run.name, active.verdict)
            state: State[Any] = (
                Cancelled(message="cancelled")
                if active.verdict == "cancelled"
                else AwaitingRetry(scheduled_time=datetime.now(UTC), message="its process was stopped")
            )
            try:
                await self.client.set_flow_run_state(run.id, state, force=True)
            except AWAY as error:
                log.warning("%s: is %s, which Prefect does not know yet: %r", run.name, active.verdict, error)
            return
        if not active.task.cancelled() and (failed := active.task.exception()) is not None:
            log.error("%s: the engine failed: %r", run.name, failed)
        if self.host is not None:
            await tries.after(self.host, run, active.task)

    async def _engine(self, flow: Flow[..., Any], run: FlowRun) -> State[Any] | None:
        current.set(self.host)  # type: ignore[arg-type]  # set before the first run
        # With its deployment the engine would open a thread and a websocket for each run.
        alone = run.model_copy(update={"deployment_id": None, "name": await self._named(flow, run)})
        if run.state is not None and run.state.is_running() and run.run_count == 1:  # as ``start`` has made it
            self.client.know(alone)
        parameters = flow.validate_parameters(run.parameters)
        found = await run_flow_async(flow, flow_run=alone, parameters=parameters, return_type="state")
        return found if isinstance(found, State) else None

    async def _named(self, flow: Flow[..., Any], run: FlowRun) -> str:
        """The name of *run*; only a quick run has to be given one, which the engine would do again for each."""
        name = run_name(run.name, flow.name, run.parameters)
        if name != run.name:
            try:
                await self.client.set_flow_run_name(run.id, name)
            except AWAY as error:
                log.warning("%s: can not be named %s: %r", run.name, name, error)
                return run.name
        return name

    async def cancelled(self, run_ids: Sequence[str]) -> list[str]:
        """Those of *run_ids* that somebody cancelled, or is cancelling; raises TryAgain where Prefect is away."""
        found = await questions.in_state(self.client, [UUID(one) for one in run_ids], ENDING)
        return [str(run.id) for run in found]

    def alive(self) -> dict[UUID, str]:
        """The names of the runs that are at work here, by id."""
        return {id_: active.name for id_, active in self._active.items()}

    async def announce(self, tag: str) -> None:
        """Let the run that calls it be found by *tag*; raises TryAgain where Prefect does not take it."""
        run = runtime.flow_run
        try:
            async with asyncio.timeout(CREATE_S):
                await self.client.update_flow_run(UUID(run.id), tags={*run.tags, tag})
        except AWAY as error:
            raise TryAgain(f"{run.name}: Prefect does not take its tag: {error!r}") from error

    async def is_taken_from(self, streamer: str, session: str) -> bool:
        """Whether a run takes away, or has taken, what *streamer* airs under the lease of *session*.

        A run that ended without saying that it took nothing may have taken it. Raises TryAgain where Prefect is away.
        """
        found = await questions.tagged(self.client, lost_tag(streamer, session))
        states = [run.state for run in found if run.state is not None]
        return any(not one.is_final() or one.name != NOT_MOVED for one in states)

    async def watch(self) -> None:
        """End the runs that somebody cancels in the UI."""
        while True:
            await asyncio.sleep(WATCH_S)
            ids = [id_ for id_, active in self._active.items() if active.verdict is None]
            if not ids:
                continue
            try:
                ending = await questions.in_state(self.client, ids, ENDING)
            except TryAgain as error:
                log.warning("prefect: can not ask for cancelled runs: %s", error.message)
                continue
            for run in ending:
                log.info("%s: cancelled in the UI", run.name)
                self.end(str(run.id), "cancelled in the UI")

    def close(self) -> None:
        """Begin no new runs; from now on a cancelled run is to go on later."""
        self._draining = True

    async def drain(self, timeout_s: float, rest_s: float) -> None:
        """Wait for the runs at work, then put the rest to AwaitingRetry, for which there are *rest_s*."""
        self.close()
        tasks = {active.task for active in self._active.values() if not active.only_watches}
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        for active in self._active.values():
            active.verdict = active.verdict or "drained"
            active.task.cancel("drained")
        left = self._slots.tasks() | {active.task for active in self._active.values()}
        if left:
            await asyncio.wait(left, timeout=rest_s)
