"""The queue of downloads, which are rows that wait; a download gets a run only when it gets a place."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

from flows import trouble
from flows.beside import Begun, NewRun
from flows.handling import SWEEP
from flows.host import Streamer, log
from flows.streamer import download
from lectern import stems
from lectern.effects.rows import plans
from lectern.errors import TryAgain

LOOK_S = 5.0
"""Seconds between two looks at the rows if no event asks for an earlier one."""

AGAIN_S = 5.0
"""Seconds until a download that ended without its file is begun again. At the start of a process, also the time in
which the run that the last process left may be resumed instead."""

KNOWN = 1000
"""Number of runs that are remembered, far more than are looked at in `AGAIN_S`. A download whose run is forgotten waits
once more before it is begun again."""

BEGINS_S = 5.0
"""Seconds after which a download is done without its run, if Prefect took the run and does not let it begin."""


@dataclass
class _Begun:
    run: Begun
    was_busy: bool = False
    at: float = field(default_factory=time.monotonic)


class Fetching:
    """Begins the downloads of a streamer, at most `max_downloads` at a time, in the order of their classes' start."""

    def __init__(self, host: Streamer) -> None:
        self._host = host
        self._begun: dict[str, _Begun] = {}
        self._aside: dict[str, float] = {}  # until when a download is passed over, monotonic
        self._awaited: set[str] = set()  # those of them whose earlier run may be resumed meanwhile
        self._known: deque[str] = deque(maxlen=KNOWN)  # the runs that this process has begun, or has waited for

    async def run(self) -> None:
        """Begin downloads until cancelled."""
        while True:
            self._host.rounds.come("downloads")
            self._host.unfetched.clear()
            await self.step()
            try:
                async with asyncio.timeout(min([LOOK_S, *(self._rest_s())])):
                    await self._host.unfetched.wait()
            except TimeoutError:
                continue

    def _rest_s(self) -> list[float]:
        now = time.monotonic()
        return [max(0.05, until - now) for until in self._aside.values()]

    async def step(self) -> None:
        """Begin the downloads for which there is a place."""
        now = time.monotonic()
        for stem in [stem for stem, one in self._begun.items() if self._is_over(stem, one)]:
            del self._begun[stem]
            self._aside[stem] = now + AGAIN_S
        for stem in [stem for stem, one in self._begun.items() if self._is_stuck(one, now)]:
            why = "Prefect does not let its run begin"  # if it begins at last, all is done
            self._begun[stem] = _Begun(self._host.starter.without(self._host.runs, _run(stem), why))
        self._aside = {stem: until for stem, until in self._aside.items() if until > now}
        self._awaited &= self._aside.keys()
        # A run that is resumed, or that a person began, was not begun here and downloads all the same.
        at_work = self._begun.keys() | self._awaited | (self._host.busy - {SWEEP})
        free = self._host.settings.max_downloads - len(at_work)
        if free <= 0:
            return
        passed_over = [*self._begun, *self._aside, *self._host.busy]
        found = await self._host.look(plans.unfetched, free, passed_over)
        ended = await asyncio.gather(*(self._take_up(stem, run_id) for stem, run_id in found), return_exceptions=True)
        for (stem, _), error in zip(found, ended, strict=True):
            if isinstance(error, Exception):  # whatever it is, it is this recording's alone
                self._aside[stem] = time.monotonic() + AGAIN_S
                await trouble.say(self._host, f"the download of {stem}", error, AGAIN_S)

    def _is_over(self, stem: str, one: _Begun) -> bool:
        if stem in self._host.busy:
            one.was_busy = True
            return False
        if isinstance(one.run, asyncio.Task):
            return one.run.done()
        return one.was_busy or not self._host.runs.is_at_work(one.run)

    @staticmethod
    def _is_stuck(one: _Begun, now: float) -> bool:
        return isinstance(one.run, str) and not one.was_busy and now - one.at > BEGINS_S

    async def _take_up(self, stem: str, run_id: str | None) -> None:
        """Begin a download; an earlier run of it first gets time to resume; if that was cancelled, give it up."""
        if run_id is not None and run_id not in self._known:
            self._known.append(run_id)
            self._awaited.add(stem)
            self._aside[stem] = time.monotonic() + AGAIN_S
        elif run_id is not None and await self._was_cancelled(run_id):
            await download.give_up(self._host, stem, download.cancelled(stem))
        else:
            await self._begin(stem)

    async def _was_cancelled(self, run_id: str) -> bool:
        """Whether a person cancelled the run while no process was at it; False if Prefect cannot be asked."""
        try:
            async with asyncio.timeout(BEGINS_S):
                return bool(await self._host.runs.cancelled([run_id]))
        except (TryAgain, TimeoutError) as error:
            log.warning("prefect: cannot ask for cancelled downloads: %s", error)
            return False

    async def _begin(self, stem: str) -> None:
        host = self._host
        try:
            begun = await host.starter.start(host.runs, _run(stem))
        except TryAgain:  # the process goes down
            return
        self._begun[stem] = _Begun(begun)
        if isinstance(begun, str):
            self._known.append(begun)
            await host.commit(plans.begun_by, stem, begun)


def _run(stem: str) -> NewRun:
    return NewRun("download", {"stem": stem}, f"download {stem}", [f"record:{stems.folder(stem)}"])
