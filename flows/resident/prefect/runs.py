"""The runs of one host: created through Prefect's API, executed in this process, cancelled, taken up again."""

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
from prefect import runtime
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas import filters
from prefect.client.schemas.actions import DeploymentFlowRunCreate
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.flow_engine import run_flow_async
from prefect.flows import Flow
from prefect.states import Cancelled, Failed, Pending, Scheduled, to_state_create

from flows import failures
from flows.handling import noted
from flows.host import NOT_MOVED, Host, claimed, current, lost_tag, run_name
from flows.prefect_api import STOPPED, UNTAKEN, NewRun, asking, best_effort, to_go_on
from flows.resident import routing
from lectern.db import inbox
from lectern.errors import Caught, LecternError, Misuse, TryAgain
from lectern.i18n import Text
from lectern.model.facts import UnrecordedWork
from lectern.run_records import WITHOUT
from lectern.timing import backoff_s
from lectern.urls import redact

log = logging.getLogger("lectern")
WATCH_S = 2.0  # seconds between two questions to the server whether one of our runs was cancelled
LAST_S = 1.0  # seconds that the server has to answer that question for the last time, before all runs are cut off
ONLY_WATCHES = frozenset({"broadcast"})
"""Flows whose runs do nothing but watch: the end of the process waits for none of them."""

ENDING = [StateType.CANCELLING, StateType.CANCELLED]
IN_THE_UI = "cancelled in the UI"
CUT_OFF = "Execution was cancelled by the runtime environment"  # Prefect's word for a run that we have ended ourselves


@dataclass
class _Active:
    task: "asyncio.Task[State[Any] | None]"
    name: str
    only_watches: bool = False
    end: State[Any] | None = None  # what it is to be shown as, because we have cut it off

    def cut_off(self, end: State[Any]) -> None:
        """End it as *end*, once: a second cancel would cut off what the first one has begun to clear up."""
        if self.end is None:
            self.end = end
            self.task.cancel(end.message)


class ResidentRuns:
    """The runs of one host: created through the API, executed here as asyncio tasks."""

    host: Host[Any]  # set before the first run

    def __init__(self, client: PrefectClient, flows: Mapping[str, Flow[..., Any]]) -> None:
        self.client = client
        self.created = Creation(client)
        self._by_name = flows
        self._active: dict[UUID, _Active] = {}
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self.untaken: dict[UUID, State[Any]] = {}  # the states of runs that were over here, and Prefect did not take
        self._draining = False
        # Runs begin in this context, not in that of the run which started them: they must not become its subflows.
        self._context = copy_context()

    def draining(self) -> bool:
        """Whether the process is going down."""
        return self._draining

    def was_cancelled(self, run_id: str) -> bool:
        """Whether a person has cancelled this run, which is at work here: not we, of a class that was taken away."""
        active = self._active.get(UUID(run_id))
        return active is not None and active.end is not None and active.end.message == IN_THE_UI

    async def start(self, run: NewRun) -> str:
        """Create a run and execute it here, at once; returns its id. Raises TryAgain if Prefect is away."""
        if self._draining:
            raise TryAgain("{run}: the process is shutting down", run=run.name)
        created = await self.created.create(run, Pending())
        self.take(created)
        return str(created.id)

    async def without(self, run: NewRun) -> None:
        """Do the work of *run* without it, because Prefect is away; the recorder shows it. Raises what it raises."""
        current.set(self.host)
        claimed.set(())
        # Prefect may have created its run: by its key, the recorder will end that.
        began, key = time.time(), run.key or uuid4().hex
        returned: Any = None
        with Caught() as failed:  # if it is cut off, the next attempt does it again
            returned = await self._by_name[run.flow].fn(**run.parameters)
        state = returned if isinstance(returned, State) else None
        message = (state.message if state else None) or "done"
        why = message if state and state.is_failed() else None
        if (error := failed.error) is not None:
            message, why = "", error.message if isinstance(error, LecternError) else redact(repr(error))
        tags = (*run.tags, WITHOUT)
        work = UnrecordedWork(run.flow, run.name, began, message, run.parameters, tags, why, key=key)
        await noted(self.host, work)
        if error is not None:
            raise error

    def is_at_work(self, run_id: str) -> bool:
        """Whether a run is being executed here."""
        return UUID(run_id) in self._tasks

    def take(self, run: FlowRun) -> None:
        """Execute a run in the background; one that is at work here already is passed over."""
        if self._draining or run.id in self._tasks:
            return
        task = asyncio.create_task(self.execute(run), context=self._context.copy())
        self._tasks[run.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(run.id))

    async def schedule(self, run: NewRun, at: float) -> str:
        """Create a run that begins at *at* (epoch seconds); returns its id. Raises TryAgain if Prefect is away."""
        return str((await self.created.create(run, Scheduled(scheduled_time=datetime.fromtimestamp(at, UTC)))).id)

    def end(self, run_id: str, reason: str) -> bool:
        """Cancel a run that is at work here; False if it is not."""
        active = self._active.get(UUID(run_id))
        if active is not None:
            active.cut_off(Cancelled(message=reason))
        return active is not None

    async def cancel(self, run_id: str, reason: str) -> None:
        """Cancel a run: end it if it is at work here, take it off the timetable if it has not begun.

        Raises TryAgain if Prefect is away.
        """
        if self.end(run_id, reason):
            return
        async with asking():
            with suppress(ObjectNotFound):
                await self.client.set_flow_run_state(UUID(run_id), Cancelled(message=reason), force=True)

    async def execute(self, run: FlowRun) -> None:
        """Run the flow of *run* to its end, report how it ended if the engine cannot, and count its messages' tries."""
        if run.id in self._active or run.state is None or run.state.is_final() or run.deployment_id is None:
            return
        flow = self.created.flow(run.deployment_id)
        if flow is None:
            log.error("%s: its deployment is not one of this host", run.name)
            return
        engine = asyncio.create_task(self._engine(flow, run), context=self._context.copy())
        active = _Active(engine, run.name, flow in ONLY_WATCHES)
        self._active[run.id] = active
        try:
            await asyncio.wait({active.task})
        finally:
            del self._active[run.id]
        failed = None if active.task.cancelled() else active.task.exception()
        ended = active.task.result() if not active.task.cancelled() and failed is None else None
        if ended is not None and ended.is_cancelling():  # before the engine began it, which leaves it so
            active.end = active.end or Cancelled(message=IN_THE_UI)
        elif ended is not None:  # by itself, before it could be cut off
            active.end = None
        if active.end is not None:
            log.info("%s: %s: %s", run.name, active.end.name, active.end.message)
            try:
                async with asking():
                    await self.client.set_flow_run_state(run.id, active.end, force=True)
            except TryAgain:
                self._untaken(run, active.end)
            return
        if failed is not None:
            log.error("%s: the engine failed: %r", run.name, failed)
        await failures.after_run(self.host, run, active.task)
        if isinstance(failed, TryAgain):  # the flow may have ended all the same: then it has nothing to do
            self._untaken(run, to_go_on(UNTAKEN))

    def _untaken(self, run: FlowRun, state: State[Any]) -> None:
        """Put *run* to *state* when Prefect is back, once; else it would be *Silent* until this host is started."""
        log.warning("%s: Prefect did not take its end, and is told when it is back", run.name)
        if self.untaken.setdefault(run.id, state) is state:
            self.created.outdated.set()

    async def _engine(self, name: str, run: FlowRun) -> State[Any] | None:
        flow = self._by_name[name]
        current.set(self.host)
        # With its deployment the engine would open a thread and a websocket for each run.
        alone = run.model_copy(update={"deployment_id": None, "name": await self._named(flow, run)})
        try:
            parameters = await self._own(name, flow.validate_parameters(run.parameters))
        except (Misuse, PrefectException) as error:
            why = f"its parameters cannot be read: {redact(str(error))}"
            log.warning("%s: %s", run.name, why)
            failed: State[Any] = Failed(message=why)  # otherwise it would be due again each second
            async with asking():
                await self.client.set_flow_run_state(run.id, failed, force=True)
            return failed
        async with asking(math.inf):  # what the flow raises is in the state
            outcome = await run_flow_async(flow, flow_run=alone, parameters=parameters, return_type="state")
        return outcome if isinstance(outcome, State) else None

    async def _own(self, name: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """*parameters* with this flow's inbox ids only: after a restore, an old run's ids may be of other flows."""
        text = parameters.get("inbox_ids")
        if not isinstance(text, str):
            return parameters
        asked = inbox.parse_id_ranges(text)
        mine = [command for command, flow in routing.of(self.host.settings).items() if flow == name]
        own = await self.host.read_tx(inbox.of_commands, asked, mine)
        if len(own) < len(asked):
            log.warning("%s: %d of its %d messages are not its own, or gone", name, len(asked) - len(own), len(asked))
        return {**parameters, "inbox_ids": inbox.format_id_ranges(own)}

    async def _named(self, flow: Flow[..., Any], run: FlowRun) -> str:
        """The name of *run*; it is set in Prefect only for a quick run; the engine would set it for each run."""
        name = run_name(run.name, flow.name, run.parameters)
        if name != run.name:
            async with best_effort(f"name {run.name} {name}"):
                await self.client.set_flow_run_name(run.id, name)
        return name

    async def cancelled(self, run_ids: Sequence[str]) -> dict[str, str]:
        """Those of *run_ids* that are cancelled, or being so, with the reason; raises TryAgain if Prefect is away."""
        ending = await runs_in_state(self.client, [UUID(run_id) for run_id in run_ids], ENDING)
        return {str(run.id): (run.state and run.state.message) or "" for run in ending}

    def alive(self) -> dict[UUID, str]:
        """The names of the runs that are at work here, by id."""
        return {id_: active.name for id_, active in self._active.items()}

    async def announce(self, *tags: str) -> None:
        """Add *tags* to the calling run, so that it is found by them; raises TryAgain if Prefect takes no tag."""
        run = runtime.flow_run
        async with asking(CREATE_S):
            await self.client.update_flow_run(UUID(run.id), tags={*run.tags, *tags})

    async def watch(self) -> None:
        """End the runs that somebody cancels in the UI."""
        while True:
            await asyncio.sleep(WATCH_S)
            await self._end_cancelled(math.inf)

    async def _end_cancelled(self, within_s: float) -> None:
        if ids := [id_ for id_, active in self._active.items() if active.end is None]:
            async with best_effort("say which runs are cancelled", within_s):
                for run in await runs_in_state(self.client, ids, ENDING):
                    log.info("%s: %s", run.name, IN_THE_UI)
                    self.end(str(run.id), IN_THE_UI)

    def close(self) -> None:
        """Begin no new runs; from now on a cancelled run is to go on later."""
        self._draining = True

    async def drain(self, timeout_s: float, rest_s: float) -> None:
        """Wait *timeout_s* for the runs at work, then put the rest to AwaitingRetry within *rest_s*."""
        self.close()
        tasks = {active.task for active in self._active.values() if not active.only_watches}
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        await self._end_cancelled(LAST_S)  # else a cancel of the last WATCH_S would be overwritten
        for active in self._active.values():
            active.cut_off(to_go_on(STOPPED))
        left = set(self._tasks.values()) | {active.task for active in self._active.values()}
        if left:
            await asyncio.wait(left, timeout=rest_s)


JSON = {"content-type": "application/json"}
BUSY_TRIES, BUSY_PAUSE_S, BUSY_MOST_S = 16, 0.05, 0.4
"""Tries while Prefect's database is locked; with longer pauses Prefect idled for half of the time after a storm."""

CREATE_S = 5.0  # seconds after which a Prefect server that has not taken a run counts as away
BULK = 25  # number of runs that are created in one request: a server on SQLite blocks all other writers meanwhile
HOST = "host:"  # the prefix of the tag by which a run of a shared queue names the host that executes it
REFUSES = frozenset({400, 409, 413, 422, 500})  # the status codes that may mean that the request itself is bad


def host_tag(name: str) -> str:
    """The tag of the runs of the host *name*."""
    return f"{HOST}{name}"


class Creation:
    """Knows the ids of the deployments, and creates their runs."""

    def __init__(self, client: PrefectClient) -> None:
        self.client = client
        self.outdated = asyncio.Event()
        """Set if Prefect does not know the deployments, whose ids must be read again, or how runs ended."""

        self.tags: tuple[str, ...] = ()  # the tags of each new run; set before the first run is created
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
            raise TryAgain("{flow}: Prefect was not reached yet", flow=flow)
        return self._ids[flow]

    def flow(self, deployment: UUID) -> str | None:
        """The flow of a deployment; None if it is not ours."""
        return self._flows.get(deployment)

    def failed(self, what: str, error: BaseException) -> TryAgain:
        """The error to raise if the API failed with *error*; unknown deployments are read again from now on."""
        status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
        if status != httpx.codes.NOT_FOUND and not isinstance(error, ObjectNotFound):
            return TryAgain("{what}: Prefect does not take the run: {error}", what=what, error=repr(error))
        self._ids = {}
        self.outdated.set()
        return TryAgain("{what}: Prefect does not know its deployment; all are read again", what=what)

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
                    raise TryAgain("{what}: Prefect does not take the run: {error}", what=run.name, error=answer)
                return await self.client.read_flow_run(answer)
        except TryAgain as error:
            cause = error.__cause__
            if cause is None:  # its own
                raise
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


PAGE = 200  # number of runs that Prefect gives at a time


async def _found(client: PrefectClient, which: Mapping[str, Any], **more: Any) -> list[FlowRun]:  # noqa: ANN401
    """The runs that *which* selects, a filter of Prefect's API; *more* are further options of the client."""
    async with asking():
        return await client.read_flow_runs(flow_run_filter=filters.FlowRunFilter.model_validate(which), **more)


async def runs_in_state(client: PrefectClient, ids: Sequence[UUID], states: Sequence[StateType]) -> list[FlowRun]:
    """The runs among *ids* that are in one of *states*."""
    return await _found(client, {"id": {"any_": list(ids)}, "state": {"type": {"any_": list(states)}}})


async def is_tagged(client: PrefectClient, tag: str, but: str) -> bool:
    """Whether a run has this *tag*, of those whose state has another name than *but*, however many others there are."""
    return bool(await _found(client, {"tags": {"all_": [tag]}, "state": {"name": {"not_any_": [but]}}}, limit=1))


@asynccontextmanager
async def about_moves() -> AsyncIterator[Callable[[str, str], Awaitable[bool]]]:
    """Asks, by a client of its own, whether a run takes away, or has taken, what a streamer airs under a lease.

    A run that ended without saying that it took nothing may have taken it. The lease is named by its session.
    """
    async with get_client() as client:

        async def is_taken(streamer: str, session: str) -> bool:
            return await is_tagged(client, lost_tag(streamer, session), but=NOT_MOVED)

        yield is_taken


async def runs_named(client: PrefectClient, pool: str, queue: str, states: Sequence[str]) -> list[FlowRun]:
    """All runs of a *queue* whose state has one of these names, however many there are."""
    wanted = {"state": {"name": {"any_": list(states)}}, "work_queue_name": {"any_": [queue]}}
    of_pool = filters.WorkPoolFilter(name=filters.WorkPoolFilterName(any_=[pool]))
    runs: list[FlowRun] = []
    while True:
        page = await _found(client, wanted, work_pool_filter=of_pool, limit=PAGE, offset=len(runs))
        runs += page
        if len(page) < PAGE:
            return runs


async def is_due(client: PrefectClient, pool: str, queue: str) -> bool:
    """Whether a run of a *queue* should have begun by now, be the queue paused or not."""
    due = {
        "state": {"type": {"any_": [StateType.SCHEDULED]}},
        "next_scheduled_start_time": {"before_": datetime.now(UTC)},
    }
    # Not by the name that a run has itself: SQLite would look through all runs of the queue, of two weeks.
    of_pool = filters.WorkPoolFilter(name=filters.WorkPoolFilterName(any_=[pool]))
    of_queue = filters.WorkQueueFilter(name=filters.WorkQueueFilterName(any_=[queue]))
    return bool(await _found(client, due, work_pool_filter=of_pool, work_queue_filter=of_queue, limit=1))
