"""Prefect's side of a host: its deployments, orphans of a crash, and the queue whose runs this process executes."""

import asyncio
import math
import time
from datetime import UTC, datetime
from typing import Any

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Pending

from flows import failures
from flows.host import Host, log
from flows.prefect_api import DIED, asking, to_go_on
from flows.resident.prefect import deployments
from flows.resident.prefect.deployments import SILENT
from flows.resident.prefect.runs import CUT_OFF, HOST, ResidentRuns, host_tag, is_due, runs_named
from lectern import errors
from lectern.errors import TryAgain
from lectern.i18n import Text
from lectern.settings import Settings
from lectern.timing import backoff_s, comes

STEADY_S = 60.0
SHOWN_S = 30.0
"""Seconds between two heartbeats by which the UI shows the host as a worker of its queue, and between two questions of
a worker, without which queue and deployments are shown as not ready after a minute."""

ALARM_AFTER_S = 60.0
"""Seconds without Prefect after which an alarm is raised: nobody sees what is done, no class can be moved."""

LOOK_S = 5.0
POLLS = 13
"""Number of polls that may fail in a row while Prefect is there: they take ALARM_AFTER_S, in which its database may
begin anew."""

ANSWERS_S = 10.0  # seconds that Prefect has to answer the question whether it is there, before it counts as away
LEFT = ["Running", "Pending", "Cancelling", "Retrying", SILENT, "Crashed"]

UNTAGGED_S = 60.0
"""Seconds after which a claimed run of a shared queue without a host's tag is abandoned: the host died claiming it."""

NOBODY = ""  # in place of a host's name: adopt only runs that were abandoned without a host's tag


async def take_due(runs: ResidentRuns, settings: Settings, *, shows: bool = True) -> None:
    """Execute the runs of this host's queue that are due; raises TryAgain if Prefect does not answer.

    A worker asks for them, which *shows* that the queue and its deployments are ready, and costs the server writes.
    """
    if not shows and not await is_due(runs.client, settings.work_pool, settings.queue):
        return
    async with asking():
        due = await runs.client.get_scheduled_flow_runs_for_work_pool(
            settings.work_pool, [settings.queue], datetime.now(UTC)
        )
    for response in due:
        async with asking():  # for each: one whose claim is cut off stays Pending, with nobody at it
            mine = await _claimed(runs, response.flow_run)
        if mine is not None:
            runs.take(mine)


async def _claimed(runs: ResidentRuns, run: FlowRun) -> FlowRun | None:
    """Claim *run* of the queue for this process; None if another process of the queue was quicker, or this one drains.

    The server accepts Pending from one process only. But it would begin a run again that another process has ended
    meanwhile: the state of such a run is put back. Raises what the client raises if Prefect is away.
    """
    if runs.draining():
        return None  # nobody would execute it until this process is started again
    if not runs.created.tags or run.state is None:
        return run
    known = {state.id for state in await runs.client.read_flow_run_states(run.id)}
    fresh = await runs.client.read_flow_run(run.id)
    if fresh.state is None or fresh.state.id != run.state.id:
        return None
    answer: OrchestrationResult[Any] = await runs.client.set_flow_run_state(run.id, Pending())
    if answer.status != SetStateStatus.ACCEPT or answer.state is None:
        return None
    known.add(answer.state.id)
    others = [state for state in await runs.client.read_flow_run_states(run.id) if state.id not in known]
    if others:
        last = max(others, key=lambda state: state.timestamp)
        await runs.client.set_flow_run_state(run.id, last, force=True)
        return None
    tags = [*(tag for tag in run.tags if not tag.startswith(HOST)), *runs.created.tags]
    await runs.client.update_flow_run(run.id, tags=tags)
    return run.model_copy(update={"state": answer.state, "tags": tags})


async def listen(host: Host[Any], client: PrefectClient) -> None:
    """Note within seconds that Prefect does not answer: its own client retries for a quarter of an hour."""
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            async with asyncio.timeout(ANSWERS_S):
                why = await client.api_healthcheck()
        except TimeoutError:
            why = TimeoutError(Text("no answer within {answers_s:g} s", answers_s=ANSWERS_S))
        if why is not None and not host.prefect_away:
            log.warning("prefect: away: %r", why)
        host.prefect_away = why is not None


async def serve(host: Host[Any], runs: ResidentRuns) -> None:
    """Execute the runs of this host's queue until cancelled; raises Misuse if a deployment is missing.

    All is begun again and again: it is ended when the server does not answer.
    """
    settings: Settings = host.settings
    tries, well_at = 0, time.monotonic()
    while True:  # not left to `Supervisor`: a host without Prefect is well, and only a long absence is an alarm
        began = time.monotonic()
        host.watchdog.note("runs")
        try:
            known = await deployments.read(runs.client, settings)
            runs.created.know(known)
            host.watchdog.note("runs")
            await adopt(runs, settings.work_pool, settings.queue, settings.name if settings.shared else None)
            well_at, host.prefect_away = time.monotonic(), False
            await _work(host, runs)
        except* TryAgain as group:
            now, why, host.prefect_away = time.monotonic(), repr(failures.first(group)), True
            if now - began > STEADY_S:
                tries, well_at = 0, now
            log.warning("prefect: away: %s", why)
            if now - well_at > ALARM_AFTER_S:
                host.ongoing[errors.WORK_FAILED.number] = now
                await failures.alarm(
                    host,
                    Text("prefect"),
                    Text("away for more than {alarm_after_s:.0f} s: {reason}", alarm_after_s=ALARM_AFTER_S, reason=why),
                )
        tries += 1
        await asyncio.sleep(backoff_s(tries))


async def _work(host: Host[Any], runs: ResidentRuns) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(runs.watch())
        group.create_task(_look_after(host, runs))
        group.create_task(deployments.beat(runs.client, runs.alive, host.settings.run_heartbeat_s))
        group.create_task(poll(host, runs))


async def poll(host: Host[Any], runs: ResidentRuns) -> None:
    """Execute what is due in this host's queue, which are retries, quick runs and schedules, until cancelled.

    Raises what was raised if that fails again and again, although Prefect is there.
    """
    settings: Settings = host.settings
    shown_at, failed = -math.inf, 0
    log.info("Worker %r started!", settings.name)
    while True:
        try:
            shows = time.monotonic() - shown_at >= SHOWN_S
            if shows:
                async with asking():
                    await runs.client.send_worker_heartbeat(settings.work_pool, settings.name, SHOWN_S)
            await take_due(runs, settings, shows=shows)
            shown_at, failed = time.monotonic() if shows else shown_at, 0
        except TryAgain as error:
            failed += 1
            log.warning("prefect: cannot %s: %s", "say which runs are due", error.message)
            if failed >= POLLS and not host.prefect_away:  # if it is, `_look_after` ends this
                raise error.__cause__ or error from None
        await asyncio.sleep(LOOK_S if failed else settings.poll_interval_s)


async def _look_after(host: Host[Any], runs: ResidentRuns) -> None:
    """Raise TryAgain if the deployments and the runs that are left must be read again, or nobody answers."""
    while True:
        host.watchdog.beat("runs")
        if host.prefect_away:
            await runs.cancelled(())  # it may answer more than its own health
        if await comes(runs.created.outdated, LOOK_S):
            raise TryAgain(Text("the deployments, and the runs that are left, are read again"))


# -- runs that no process executes -------------------------------------------------------------------------------------
async def adopt(runs: ResidentRuns, pool: str, queue: str, host: str | None = None) -> int:
    """Set the runs that a process left to AwaitingRetry or Cancelled; returns their number.

    It left them because it crashed, or because Prefect did not take the states of all of them before it ended. If hosts
    share the queue, only runs of *host* and runs abandoned untagged; None if the queue belongs to one host.
    """
    ours = set(runs.alive())  # some may end while Prefect is asked, and some begin
    left = await runs_named(runs.client, pool, queue, LEFT)
    orphans = [run for run in left if run.id not in ours and not runs.is_at_work(str(run.id)) and not _has_ended(run)]
    if host is not None:
        orphans = [run for run in orphans if _is_of(run, host)]
    for run in orphans:
        cancelling = run.state is not None and run.state.is_cancelling()
        untaken = runs.untaken.get(run.id)
        state: State[Any] = Cancelled(message=DIED) if cancelling else untaken or to_go_on(DIED)
        if untaken is None:
            log.warning("%s: its process died; it is put to %s", run.name, state.name)
        try:
            async with asking():
                await runs.client.set_flow_run_state(run.id, state, force=True)
        except TryAgain as error:
            cause = error.__cause__
            if isinstance(cause, httpx.HTTPStatusError) and cause.response.is_client_error:  # it holds up no other run
                log.warning("%s: Prefect does not take its new state: %s", run.name, cause)
            elif not isinstance(cause, ObjectNotFound):  # nobody has deleted it
                raise
    return len(orphans)


def _has_ended(run: FlowRun) -> bool:
    """Whether *run* has crashed by itself: Prefect's engine says Crashed also of those that we end."""
    return run.state is not None and run.state.name == "Crashed" and CUT_OFF not in (run.state.message or "")


def _is_of(run: FlowRun, host: str) -> bool:
    hosts = [tag for tag in run.tags if tag.startswith(HOST)]
    if hosts or run.state is None:
        return host_tag(host) in hosts
    return (datetime.now(UTC) - run.state.timestamp).total_seconds() > UNTAGGED_S
