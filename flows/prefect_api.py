"""The way to Prefect: one client, one error for its calls, and runs that begin beside the work that asks for them."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID, uuid4

import httpx
import stamina
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import State, StateType
from prefect.context import AsyncClientContext, SyncClientContext
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL
from prefect.states import AwaitingRetry

from lectern.errors import Caught, TryAgain
from lectern.timing import FIRST_S

log = logging.getLogger("lectern")
ASK_S = 30.0
"""Seconds that Prefect has to answer a question: while it hangs, its own client would wait for seven minutes."""

AWAY = (httpx.HTTPError, PrefectException, ValueError, LookupError, TypeError, RuntimeError, OSError)
"""What a call of Prefect's API raises if the server is away, refuses, or answers what no Prefect answers: another
program at its address, a page of a proxy, an older or newer version. Only for calls of the API: it is broad."""


@asynccontextmanager
async def asking(within_s: float | None = None) -> AsyncIterator[None]:
    """A context for calls of Prefect's API and nothing else: raises TryAgain for any of their errors, its cause.

    Also if they take longer than *within_s*, or ASK_S.
    """
    try:
        async with asyncio.timeout(ASK_S if within_s is None else within_s):
            yield
    except AWAY as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else repr(error)
        raise TryAgain(
            "Prefect does not answer at {value}: {reason}", value=PREFECT_API_URL.value(), reason=why
        ) from error


@asynccontextmanager
async def best_effort(to_do: str, within_s: float | None = None) -> AsyncIterator[None]:
    """A context as `asking`, for what no work depends on: that it cannot be done is logged, and raised no further."""
    try:
        async with asking(within_s):
            yield
    except TryAgain as error:
        log.warning("prefect: cannot %s: %s", to_do, error.message)


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


OURS = DIED, STOPPED, UNTAKEN = "its process died", "its process was stopped", "Prefect did not take its end"
"""Why a run goes on: the messages of the states that we set, by which they differ from a person's *Retry*."""


def to_go_on(why: str) -> State[Any]:
    """The state of a run that is to go on at once, because of *why*."""
    return AwaitingRetry(scheduled_time=datetime.now(UTC), message=why)


async def is_retried(run_id: UUID) -> bool:
    """Whether a run has begun for the first time since a person asked for it. Raises TryAgain if Prefect is away."""
    async with asking(), get_client() as client:
        states = sorted(await client.read_flow_run_states(run_id), key=lambda one: one.timestamp)
    asked = [at for at, one in enumerate(states) if one.is_scheduled() and one.message not in OURS]
    begun = [one for one in states[asked[-1] :] if one.type is StateType.RUNNING] if asked else []
    return len(begun) == 1


WAITING = 1000  # number of runs that may wait to be begun; the sweeper begins those beyond it
AT_ONCE = 4
PATIENCE_S = 3.0
"""Seconds after which a failed request to Prefect is not retried, because a class that begins soon may wait for it."""

CIRCUIT_OPEN_S = 10.0
"""Seconds for which work that needs no run does not ask for one, after Prefect took none: a long queue would wait for
a Prefect that hangs. Not longer, because nobody sees or cancels work without a run in the UI."""

Begun = str | asyncio.Task[None]
"""The id of the run that does a work, or the task that does it without a run."""


@dataclass(frozen=True)
class NewRun:
    """What the run does and what it is called; of runs with the same *key* Prefect creates one.

    If it names *outdated*, a run that was cancelled because of that, or that has completed, does not count as one of
    them: another is created.
    """

    flow: str
    parameters: Mapping[str, Any]
    name: str
    tags: Sequence[str] = ()
    key: str | None = None
    outdated: str | None = None


class Runs(Protocol):
    """The runs of this process in Prefect; what talks to Prefect raises TryAgain while it is away."""

    def draining(self) -> bool:
        """Whether the process is going down."""

    def is_at_work(self, run_id: str) -> bool:
        """Whether a run is being executed here."""

    def was_cancelled(self, run_id: str) -> bool:
        """Whether a person has cancelled this run, which is at work here: not we, of a class that was taken away."""

    def end(self, run_id: str, reason: str) -> bool:
        """Cancel a run that is at work here; False if it is not."""

    async def start(self, run: NewRun) -> str:
        """Create a run and execute it here, at once; returns its id."""

    async def schedule(self, run: NewRun, at: float) -> str:
        """Create a run that begins at *at* (epoch seconds); returns its id."""

    async def without(self, run: NewRun) -> None:
        """Do the work of *run* without it, because Prefect is away. Raises what the work raises."""

    async def cancel(self, run_id: str, reason: str) -> None:
        """Cancel a run: end it if it is at work here, take it off the timetable if it has not begun."""

    async def cancelled(self, run_ids: Sequence[str]) -> dict[str, str]:
        """Those of *run_ids* that are cancelled, or being so, with the reason."""

    async def announce(self, *tags: str) -> None:
        """Add *tags* to the calling run, so that it is found by them."""


CANCELLED_S = 5.0  # seconds that Prefect has to say which runs are cancelled, before their work goes on


async def cancelled_runs(runs: Runs, run_ids: Sequence[str]) -> Mapping[str, str]:
    """Those of *run_ids* that somebody cancelled, as `Runs.cancelled` says; none if Prefect cannot be asked."""
    found: dict[str, str] = {}
    async with best_effort("say which runs are cancelled", CANCELLED_S):
        found |= await runs.cancelled(run_ids) if run_ids else {}
    return found


class BackgroundRuns:
    """Begins runs; after Prefect took none, work that needs no run asks for none until the circuit closes."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._working: set[asyncio.Task[None]] = set()
        self._keys: dict[str, str] = {}  # of needed runs that Prefect may have created without saying so
        self._open_until = 0.0  # monotonic

    def begin(self, runs: Runs, run: NewRun, *, needs_run: bool = False) -> None:
        """Start *run* in the background, so that no message waits for Prefect; one that waits already is ignored."""
        what = f"{run.flow} {run.parameters}"
        if what in self._waiting:
            return
        if len(self._waiting) >= WAITING:
            log.warning("%s: its run cannot begin, the sweeper tries again: %d others wait", run.name, WAITING)
            return
        self._waiting[what] = asyncio.create_task(self._in_turn(runs, run, needs_run=needs_run), name=run.name)
        self._waiting[what].add_done_callback(lambda _: self._waiting.pop(what))

    async def _in_turn(self, runs: Runs, run: NewRun, *, needs_run: bool) -> None:
        async with self._places:
            with Caught() as failed:
                await self.start(runs, run, needs_run=needs_run)
            if failed.error is not None:
                log.warning("%s: needs a run, which cannot begin yet: %s", run.name, failed.error)

    async def start(self, runs: Runs, run: NewRun, at: float | None = None, *, needs_run: bool = False) -> Begun:
        """Begin *run* now, or make it for *at* (epoch seconds); if Prefect does not take it, its work is done without.

        Raises TryAgain if it *needs_run*, or the process goes down.
        """
        what = f"{run.flow} {run.parameters}"
        key = self._keys.pop(what, f"{run.name} {uuid4().hex}")
        run = replace(run, key=run.key or key)
        why = "Prefect took no run just before"
        if needs_run or time.monotonic() >= self._open_until:
            try:
                again = stamina.AsyncRetryingCaller(attempts=3, timeout=PATIENCE_S, wait_initial=FIRST_S)
                if at is None:
                    run_id = await again(TryAgain, runs.start, run)
                else:
                    run_id = await again(TryAgain, runs.schedule, run, at)
            except TryAgain as error:
                self._open_until = time.monotonic() + CIRCUIT_OPEN_S
                if needs_run or runs.draining():
                    self._keys[what] = str(run.key)  # the next try finds that run
                    raise
                why = error.message
            else:
                self._open_until = 0.0
                return run_id
        return self.without(runs, run, why)

    def without(self, runs: Runs, run: NewRun, why: str) -> Begun:
        """Do the work of *run* without it, in the background."""
        log.warning("%s: has no run, its work is done without: %s", run.name, why)
        working = asyncio.create_task(_without(runs, run), name=run.name)
        self._working.add(working)
        working.add_done_callback(self._working.discard)
        return working

    async def close(self, within_s: float) -> None:
        """Cancel the runs that wait to begin, and the work that is done without a run."""
        tasks = {*self._waiting.values(), *self._working}
        for task in tasks:
            task.cancel("drained")
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)


async def _without(runs: Runs, run: NewRun) -> None:
    with Caught() as failed:
        await runs.without(run)
    if failed.error is not None:
        log.error("%s: failed without a run, it is begun again: %r", run.name, failed.error)
