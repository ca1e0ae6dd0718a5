"""Takes over runs that no process executes: those that a crash left, and those whose creation was not confirmed."""

import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import httpx
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled

from flows.prefect_api import DIED, asking, to_go_on
from flows.resident import questions
from flows.resident.creation import HOST, host_tag
from flows.resident.heartbeats import SILENT
from flows.resident.runs import ResidentRuns
from lectern.errors import TryAgain

log = logging.getLogger("lectern")
LEFT = ["Running", "Pending", "Cancelling", "Retrying", SILENT]


UNTAGGED_S = 60.0
"""Seconds after which a claimed run of a shared queue without a host's tag is abandoned: the host died claiming it."""

NOBODY = ""
"""In place of a host's name: adopt only runs that were abandoned without a host's tag."""


async def adopt(runs: ResidentRuns, pool: str, queue: str, host: str | None = None) -> int:
    """Set the runs that a crashed process left to AwaitingRetry or Cancelled; returns their number.

    If hosts share the queue, only runs of *host* and runs abandoned untagged; None if the queue belongs to one host.
    """
    ours = set(runs.alive())
    left = await questions.named(runs.client, pool, queue, LEFT)
    ours |= runs.alive().keys()  # some have begun meanwhile
    orphans = [run for run in left if run.id not in ours]
    if host is not None:
        orphans = [run for run in orphans if _is_of(run, host)]
    for run in orphans:
        cancelling = run.state is not None and run.state.is_cancelling()
        state: State[Any] = Cancelled(message=DIED) if cancelling else to_go_on(DIED)
        log.warning("%s: its process died; it is put to %s", run.name, state.name)
        try:
            async with asking():
                await runs.client.set_flow_run_state(run.id, state, force=True)
        except TryAgain as error:
            match error.__cause__:
                case httpx.HTTPStatusError(response=answer) if answer.is_client_error:  # it holds up no other run
                    log.warning("%s: Prefect does not take its new state: %s", run.name, error.__cause__)
                case ObjectNotFound():  # somebody has deleted it
                    pass
                case _:
                    raise
    return len(orphans)


def _is_of(run: FlowRun, host: str) -> bool:
    hosts = [tag for tag in run.tags if tag.startswith(HOST)]
    if hosts or run.state is None:
        return host_tag(host) in hosts
    return (datetime.now(UTC) - run.state.timestamp).total_seconds() > UNTAGGED_S


async def take_unheard(runs: ResidentRuns) -> None:
    """Execute the runs whose creation Prefect did not confirm: otherwise they would look alive for ever.

    Their messages may be handled by now: each flow skips what is done.
    """
    keys = list(runs.created.unheard)
    if not keys:
        return
    found = await questions.begun(runs.client, keys)
    for key in keys:
        with suppress(ValueError):  # others that were not heard of meanwhile have taken its place
            runs.created.unheard.remove(key)
    for run in found:
        log.info("%s: Prefect had created it without our hearing of it", run.name)
        runs.take(run)
