"""Begins runs in the background, so that no handling of messages waits for Prefect."""

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

from flows.new_run import NewRun
from lectern.errors import TryAgain
from lectern.timing import backoff_s

if TYPE_CHECKING:
    from flows.resident.runs import ResidentRuns

log = logging.getLogger("lectern")
WAITING = 1000
"""Number of runs that may wait to be begun; the sweeper begins those beyond it."""

AT_ONCE = 4
TRIES = 3
PATIENCE_S = 3.0
"""Seconds after which a failed request to Prefect is not retried, because a class that begins soon may wait for it."""

SHUNNED_S = 10.0
"""Seconds for which work that needs no run does not ask for one, after Prefect took none: a long queue would wait for
a Prefect that hangs. Not longer, because nobody sees or cancels work without a run in the UI."""


class Beside:
    """Begins a few runs at a time, retries each a few times, and ignores a run that already waits to begin."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._working: set[asyncio.Task[None]] = set()
        self._shunned_until = 0.0

    def begin(self, runs: "ResidentRuns", run: NewRun, *, needs_run: bool = False) -> None:
        """Begin *run* in the background; if Prefect does not take it, do its work without it, unless it *needs_run*."""
        what = f"{run.flow} {run.parameters}"
        if what in self._tasks:
            return
        if len(self._tasks) >= WAITING:
            log.warning("%s: its run cannot begin, the sweeper tries again: %d others wait", run.name, WAITING)
            return
        self._tasks[what] = asyncio.create_task(self._do(runs, run, needs_run=needs_run), name=run.name)
        self._tasks[what].add_done_callback(lambda _: self._tasks.pop(what))

    async def close(self, within_s: float) -> None:
        """Cancel the runs that wait to begin, and the work that is done without a run."""
        tasks = {*self._tasks.values(), *self._working}
        for task in tasks:
            task.cancel("drained")
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)

    async def _do(self, runs: "ResidentRuns", run: NewRun, *, needs_run: bool) -> None:
        async with self._places:
            if not needs_run and time.monotonic() < self._shunned_until:
                why = "Prefect took no run just before"
            else:
                run = replace(run, key=f"{run.name} {uuid4().hex}")
                why = await _asked(runs, run)
                self._shunned_until = time.monotonic() + SHUNNED_S if why else 0.0
                if not why:
                    return
        if runs.draining() or needs_run:
            log.warning("%s: needs a run, which cannot begin yet: %s", run.name, why)
            return
        log.warning("%s: has no run, its work is done without: %s", run.name, why)
        working = asyncio.create_task(self._without(runs, run), name=run.name)
        self._working.add(working)
        working.add_done_callback(self._working.discard)

    @staticmethod
    async def _without(runs: "ResidentRuns", run: NewRun) -> None:
        try:
            await runs.without(run)
        except Exception as error:  # noqa: BLE001 (whatever it is, the sweeper begins it again)
            log.error("%s: failed without a run, the sweeper tries again: %r", run.name, error)


async def _asked(runs: "ResidentRuns", run: NewRun) -> str:
    """Begin a run; returns why it could not begin, or an empty string."""
    began, why = time.monotonic(), ""
    for tries in range(TRIES):
        try:
            await runs.start(run)
        except Exception as error:  # noqa: BLE001 (whatever it is, the others are begun)
            why = error.message if isinstance(error, TryAgain) else repr(error)
            if time.monotonic() - began > PATIENCE_S:
                break
            await asyncio.sleep(backoff_s(tries))
        else:
            return ""
    return why or "it is not known why"
