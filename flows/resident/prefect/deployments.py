"""What ``lectern init`` makes in Prefect: the deployments of a role, and the automation for runs that fall silent."""

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType, VersionInfo
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import Event
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.flows import Flow

from flows.host import NOT_MOVED, log
from flows.prefect_api import asking, best_effort
from flows.streamer.amend import amend
from flows.streamer.broadcast import broadcast
from flows.streamer.downloads import download
from flows.streamer.maintenance import reconcile, sweep_streamer
from flows.streamer.prepare import prepare
from flows.teacher.bookings import booking, change, report
from flows.teacher.maintenance import sweep_teacher
from flows.teacher.membership import move
from flows.teacher.transcoding import request, settle, transcode
from lectern import __version__
from lectern.errors import Misuse, TryAgain
from lectern.i18n import Text, msgid
from lectern.run_records import SHOWN
from lectern.settings import Settings, TeacherSettings

# Heartbeats of runs: this process reports which of its runs are alive; the server marks a run that falls silent.

ALIVE = "lectern.run.alive"
SILENT = "Silent"  # the name of the state (type Crashed) of a run whose process sends no more heartbeats
NOT_AT_WORK = frozenset({"Completed", "Failed", "Cancelled", "Crashed", "Cancelling", "AwaitingRetry", "Paused"})
NOT_AT_WORK |= {"Suspended", SILENT, NOT_MOVED}
"""States in which no run is at work. The server writes down each expected event singly: expecting also the events of
new runs kept it from taking them; so did the events of runs that the recorder creates in their final state."""

AUTOMATION = "lectern: silent runs"  # the name of the automation by which the server sees that a run falls silent
MESSAGE = "prefect.state-message"  # the label of an event that has the message of the run's state
ASK_S = 10.0
"""Seconds that Prefect has to take a heartbeat: less than a heartbeat takes to be missed, so that the next one comes in
time."""

BEATS = 3  # number of missing heartbeats in a row after which a run is shown as *Silent*


async def beat(client: PrefectClient, active: Callable[[], Mapping[UUID, str]], every_s: float) -> None:
    """Say every *every_s* seconds that the *active* runs (name by id) are alive, in one request."""
    while True:
        await asyncio.sleep(every_s)
        runs = active()
        if not runs:
            continue
        async with best_effort(f"take the heartbeats of {len(runs)} runs", ASK_S):
            await client.request("POST", "/events", json=[_event(id_, name) for id_, name in runs.items()])


def _event(run_id: UUID, name: str) -> dict[str, Any]:
    resource = {**_run(f"{run_id}"), "prefect.resource.name": name, MESSAGE: "alive"}
    return Event.model_validate({"event": ALIVE, "resource": resource}).model_dump(mode="json")


def _run(id_: str) -> dict[str, str]:
    return {"prefect.resource.id": f"prefect.flow-run.{id_}"}


def silent_runs(every_s: float) -> AutomationCore:
    """The automation by which the server sets a run to *Silent* after three missed heartbeats."""
    silence = max(timedelta(seconds=BEATS * every_s), timedelta(seconds=10))  # Prefect's least
    return AutomationCore(
        name=AUTOMATION,
        description="A run whose process says nothing any more becomes Silent; its host takes it up when it starts.",
        enabled=True,
        trigger=EventTrigger(
            after={ALIVE},
            expect={ALIVE, *(f"prefect.flow-run.{state}" for state in NOT_AT_WORK)},
            for_each={"prefect.resource.id"},
            match={**_run("*"), MESSAGE: f"!{SHOWN}"},
            posture=Posture.Proactive,
            threshold=1,
            within=silence,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name=SILENT,
                message=f"nothing was heard of it for {silence.total_seconds():g} s: see whether its host is alive",
            )
        ],
    )


def _by_name(*flows: Flow[..., Any]) -> Mapping[str, Flow[..., Any]]:
    """The flows of a role, by the first word of their names: sweeps have their role behind it."""
    return {flow.name.partition(" ")[0]: flow for flow in flows}


TEACHER = _by_name(booking, change, report, settle, request, transcode, move, sweep_teacher)
STREAMER = _by_name(prepare, amend, download, broadcast, reconcile, sweep_streamer)

PARAMETERS: Mapping[str, str] = {
    "inbox_ids": "Numbers of messages in the inbox, as a run of the same flow shows them: 17,20-25. "
    "The flow change needs none if class_id is given.",
    "renditions": "Pairs of a record and a resolution, for which the OSS transcoder is asked.",
    "record_id": "The number of the recorded lesson.",
    "resolutions": "Picture sizes, such as 480P; several are made in one go.",
    "streamer": "The name of the streamer whose classes are moved to others.",
    "force": "Move them although the streamer is alive. First stop its program, or two streamers air one class.",
    "class_id": "The class, as it was booked.",
    "start_time": "When the class is to begin, in epoch seconds; empty: as it is.",
    "end_time": "When the class is to end, in epoch seconds; empty: as it is.",
    "stem": "The name of the rendition: 6666_720P, or 6666.",
    "dry_run": "Only say what would be done.",
}
"""What the form of a quick run says of each parameter."""

UNUSED = "default"  # the default queue that Prefect creates in each pool; our hosts have queues of their own instead
NO_JOB: dict[str, Any] = {"job_configuration": {"env": {}}, "variables": {"type": "object"}}
"""A job template without variables: our runs need no infrastructure. In the transaction of each new run, the server
checks the schema of the pool's variables: the usual one takes longer than all the rest, and other writers get in."""


def of(settings: Settings) -> Mapping[str, Flow[..., Any]]:
    """The flows of a role."""
    return TEACHER if isinstance(settings, TeacherSettings) else STREAMER


async def make(settings: Settings, *, check: bool = False) -> list[str]:
    """Make the work pool, the host's queue, a deployment of each flow and the automation, if they are missing.

    What exists is replaced by another release, or if WORK_POOL was changed, only. Returns the name of each thing that
    was made, or, to *check*, that would be; raises TryAgain if Prefect does not answer.
    """
    async with asking(math.inf), get_client() as client:
        wanted = await _missing(client, settings)
        if check:
            return [*wanted]
        for made in wanted.values():
            await made()
        return [*wanted]


async def _missing(client: PrefectClient, settings: Settings) -> dict[str, Callable[[], Awaitable[object]]]:
    """What is missing, by its name, in the order in which it can be made, each with the call that makes it."""
    missing: dict[str, Callable[[], Awaitable[object]]] = {}
    make_pool = partial(_make_pool, client, settings.work_pool)
    try:
        pool = await client.read_work_pool(settings.work_pool)
    except ObjectNotFound:
        missing[f"work pool {settings.work_pool}"] = make_pool
    else:
        if pool.type != "resident":
            wrong = msgid("The work pool {pool!r} is of type {type!r}, not 'resident'. Set WORK_POOL to another name.")
            raise Misuse(Text(wrong, pool=pool.name, type=pool.type))
        unused = await client.read_work_queue_by_name(UNUSED, work_pool_name=pool.name)
        if pool.base_job_template != NO_JOB or not unused.is_paused:  # no worker polls it: the UI shows it as unhealthy
            missing[f"work pool {settings.work_pool}"] = make_pool
    for flow in of(settings).values():
        name = f"{flow.name}/{settings.queue}"
        there = None
        with suppress(ObjectNotFound):
            there = await client.read_deployment_by_name(name)
        if there is None or not _is_current(there, settings):
            missing[f"deployment {name}"] = partial(_make_deployment, settings, flow)
    wanted = silent_runs(settings.run_heartbeat_s)
    known = await client.read_automations_by_name(wanted.name)
    if not any(one.trigger == wanted.trigger and one.actions == wanted.actions for one in known):
        missing[f"automation {AUTOMATION!r}"] = partial(_make_automation, client, wanted)
    return missing


def _is_current(there: DeploymentResponse, settings: Settings) -> bool:
    """Whether a deployment is of this release, and its runs come into the queue that this host polls."""
    ours = __version__, settings.work_pool, settings.queue
    return (there.version, there.work_pool_name, there.work_queue_name) == ours


async def _make_automation(client: PrefectClient, wanted: AutomationCore) -> None:
    if there := await client.read_automations_by_name(wanted.name):  # another host may have been quicker
        await client.update_automation(there[0].id, wanted)
    else:
        await client.create_automation(wanted)


async def _make_pool(client: PrefectClient, name: str) -> None:
    try:
        await client.create_work_pool(WorkPoolCreate(name=name, type="resident", base_job_template=NO_JOB))
    except ObjectAlreadyExists:  # another host was quicker, or an earlier release made it otherwise
        await client.update_work_pool(name, WorkPoolUpdate(base_job_template=NO_JOB))
    queue = await client.read_work_queue_by_name(UNUSED, work_pool_name=name)
    await client.update_work_queue(queue.id, is_paused=True)


async def _make_deployment(settings: Settings, flow: Flow[..., Any]) -> None:
    deployment = await flow.ato_deployment(
        name=settings.queue,
        work_pool_name=settings.work_pool,
        work_queue_name=settings.queue,
        description=inspect.cleandoc(flow.fn.__doc__ or ""),
        tags=[settings.queue],
        version=__version__,
    )
    for name, schema in deployment._parameter_openapi_schema.properties.items():
        schema["description"] = PARAMETERS.get(name, schema.get("description", ""))
    # Without a version_info, Prefect would ask git for it, and block the event loop until git answers.
    await deployment.aapply(version_info=VersionInfo(type="prefect:simple", version=__version__))


async def read(client: PrefectClient, settings: Settings) -> dict[str, UUID]:
    """The id of each flow's deployment; one of another release, as after a rollback, or work pool is replaced.

    Prefect judges the parameters of a run by its deployment's schema, and ours need not fit that of a newer release.
    Raises Misuse if one is missing, TryAgain if Prefect is away.
    """
    ids: dict[str, UUID] = {}
    for key, flow in of(settings).items():
        name = f"{flow.name}/{settings.queue}"
        try:
            async with asking():
                there = await client.read_deployment_by_name(name)
                if not _is_current(there, settings):
                    await _make_deployment(settings, flow)  # it keeps its id
                    log.info("deployment %s: was of %s in %s, made anew", name, there.version, there.work_pool_name)
        except TryAgain as error:
            if not isinstance(error.__cause__, ObjectNotFound):
                raise
            raise Misuse(
                "Prefect knows no deployment {name!r}. Type: lectern init {role}", name=name, role=settings.role
            ) from error
        ids[key] = there.id
    return ids
