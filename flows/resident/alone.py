"""Work that was done without a run because Prefect took none; a run shows it later, and a person can retry it there."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed, Running

from flows.new_run import NewRun
from flows.resident.creation import BULK, REFUSES, Creation, wanted
from flows.resident.prefect_client import asking
from lectern.errors import LecternError, TryAgain
from lectern.runs.pages import clock
from lectern.shown import masked

log = logging.getLogger("lectern")
KEPT = 1000
"""Number of finished works that wait for a run to show them; beyond it, the oldest ones are dropped."""

ASK_S, SAY_EVERY_S = 30.0, 60.0

TAG = "lectern:without-run"
WHY = "without a run, because Prefect let none begin"


@dataclass
class _Work:
    run: NewRun
    began: float
    end: State[Any] | None = None  # None while it is at work
    run_id: UUID | None = None
    is_known: bool = False  # Prefect has its run, or may have it


class Alone:
    """Work that is, or was, done without a run; each work is shown by one run later."""

    def __init__(self, created: Creation, shown: set[UUID]) -> None:
        self._created = created
        self._shown = shown
        self._works: dict[str, _Work] = {}
        self._said_at = -SAY_EVERY_S

    def keys(self) -> set[str]:
        """The keys of the runs whose work is done here: Prefect may have created them without confirming it."""
        return set(self._works)

    async def do(self, run: NewRun, work: Callable[..., Awaitable[Any]]) -> None:
        """Do the work of *run*, and keep how it ended; raises what the work raises."""
        key = run.key or uuid4().hex
        one = self._works[key] = _Work(replace(run, key=key, tags=(*run.tags, TAG)), time.time())
        try:
            found = await work(**run.parameters)
        except Exception as error:
            _end(one, Failed(message=error.message if isinstance(error, LecternError) else masked(repr(error))))
            raise
        else:
            _end(one, found if isinstance(found, State) else Completed())
        finally:
            if one.end is None:
                self._works.pop(key, None)  # cut off: the next attempt does it again
            self._forget()

    def _forget(self) -> None:
        done = [key for key, one in self._works.items() if one.end is not None]
        for key in done[: max(0, len(done) - KEPT)]:
            oldest = self._works.pop(key)
            if time.monotonic() - self._said_at >= SAY_EVERY_S:
                self._said_at = time.monotonic()
                self._say(oldest, f"{KEPT} others wait")

    @staticmethod
    def _say(one: _Work, why: str) -> None:
        log.warning("%s: was done without a run, and none shows it: %s", one.run.name, why)

    def unheard(self, key: str) -> None:
        """Note that Prefect may have created the run of *key* before its work was done without it."""
        self._works[key].is_known = True

    async def show(self) -> None:
        """Create the missing runs, many in a request, and end those shown at work; later, if Prefect is away."""
        try:
            with asking():
                for flow in sorted({one.run.flow for one in self._works.values() if not one.is_known}):
                    await self._create(flow)
                for one in [one for one in self._works.values() if one.is_known]:
                    if one.end is not None:
                        await self._end_known(one, one.end)
        except TryAgain as error:
            log.info("prefect: %d works without a run are shown later: %s", len(self._works), error.message)

    async def _create(self, flow: str) -> None:
        new = [one for one in self._works.values() if one.run.flow == flow and not one.is_known]
        for first in range(0, len(new), BULK):
            some = [(one, one.end or _at_work(one)) for one in new[first : first + BULK]]
            for (one, state), id_ in zip(some, await self._bulk(flow, some), strict=True):
                if isinstance(id_, str):
                    self._say(one, id_)
                elif not state.is_final():
                    one.is_known, one.run_id = True, id_
                    self._shown.add(id_)  # no process executes it, and it is no orphan to be taken over
                    continue
                else:
                    await self._say_why(id_, state)
                self._works.pop(str(one.run.key), None)

    async def _say_why(self, run_id: UUID, state: State[Any]) -> None:
        """Write the reason of a failure into the log of its run: the UI opens such a run on its log."""
        if not state.is_failed():
            return
        line = {"name": "lectern", "level": logging.ERROR, "message": state.message, "flow_run_id": str(run_id)}
        try:
            async with asyncio.timeout(ASK_S):
                await self._created.client.create_logs([{**line, "timestamp": datetime.now(UTC).isoformat()}])
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in REFUSES:
                raise
            log.warning("recorder: log lines of %d runs are not shown: %s", 1, error)

    async def _bulk(self, flow: str, some: Sequence[tuple[_Work, State[Any]]]) -> list[UUID | str]:
        """The id of each run, or why Prefect refuses it; if a request of many is refused, each is made alone."""
        try:
            async with asyncio.timeout(ASK_S):
                found = await self._created.bulk(flow, [wanted(one.run, state) for one, state in some])
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in REFUSES:
                raise
            found = [str(error)] * len(some)
        if len(some) == 1 or all(isinstance(one, UUID) for one in found):
            return found
        return [id_ for one in some for id_ in await self._bulk(flow, [one])]  # it was one transaction: all had failed

    async def _end_known(self, one: _Work, state: State[Any]) -> None:
        """End the run of one work; a run that Prefect refuses to end is dropped, and holds up no other."""
        try:
            await self._ended(one, state)
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in REFUSES:
                raise
            self._say(one, str(error))
            self._works.pop(str(one.run.key), None)

    async def _ended(self, one: _Work, state: State[Any]) -> None:
        """Set the final state of a run; a run whose creation was not confirmed is found by its key first."""
        if one.run_id is None:
            (found,) = await self._bulk(one.run.flow, [(one, state)])
            if isinstance(found, str):
                self._say(one, found)
                self._works.pop(str(one.run.key), None)
                return
            one.run_id = found
        with suppress(ObjectNotFound):  # somebody has deleted it
            async with asyncio.timeout(ASK_S):
                await self._created.client.set_flow_run_state(one.run_id, state, force=True)
                await self._say_why(one.run_id, state)
        self._shown.discard(one.run_id)
        self._works.pop(str(one.run.key), None)


def _at_work(one: _Work) -> State[Any]:
    return Running(message=f"{WHY}, since {clock(one.began)}")


def _end(one: _Work, state: State[Any]) -> None:
    took = f"done {WHY}, from {clock(one.began)} to {clock(time.time())}"
    one.end = state.model_copy(update={"message": f"{state.message}; {took}" if state.message else took, "data": None})
