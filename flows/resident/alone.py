"""Work that is done without a run because Prefect took none, until a run shows it: there a person tries it again."""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Completed, Failed, Running

from flows.new_run import NewRun
from flows.resident.creation import Creation
from flows.resident.prefect_client import asking
from lectern.errors import LecternError, TryAgain
from lectern.runs.pages import clock

log = logging.getLogger("lectern")
KEPT = 1000
"""Number of works that wait to be shown; of more, the oldest ones are not."""

SAY_EVERY_S = 60.0

TAG = "lectern:without-run"
WHY = "without a run, because Prefect took none"


@dataclass
class _Work:
    run: NewRun
    began: float
    end: State[Any] | None = None  # None while it is at work
    is_shown: bool = False


class Alone:
    """What is at work without a run, and what was; each is shown by one run."""

    def __init__(self, created: Creation, shown: set[UUID]) -> None:
        self._created = created
        self._shown = shown
        self._works: dict[str, _Work] = {}
        self._said_at = -SAY_EVERY_S

    def keys(self) -> set[str]:
        """The keys of the runs whose work is done here: Prefect may have created them without our hearing of it."""
        return set(self._works)

    async def do(self, run: NewRun, work: Callable[..., Awaitable[Any]]) -> None:
        """Do the work of *run*, and keep how it ended; raises what the work raises."""
        key = run.key or uuid4().hex
        one = self._works[key] = _Work(replace(run, key=key, tags=(*run.tags, TAG)), time.time())
        try:
            found = await work(**run.parameters)
        except Exception as error:
            _end(one, Failed(message=error.message if isinstance(error, LecternError) else repr(error)))
            raise
        else:
            _end(one, found if isinstance(found, State) else Completed())
        finally:
            if one.end is None:
                del self._works[key]  # cut off: whoever comes next does it again
            self._forget()

    def _forget(self) -> None:
        done = [key for key, one in self._works.items() if one.end is not None]
        for key in done[: max(0, len(done) - KEPT)]:
            oldest = self._works.pop(key)
            if time.monotonic() - self._said_at >= SAY_EVERY_S:
                self._said_at = time.monotonic()
                log.warning("%s: was done without a run, and none shows it: %d others wait", oldest.run.name, KEPT)

    async def show(self) -> None:
        """Create the runs, until Prefect does not take one, which is the last to be tried when this is called again."""
        for key, one in list(self._works.items()):
            if one.is_shown and one.end is None:
                continue
            try:
                with asking():
                    run = await self._show(one)
            except TryAgain as error:
                log.info("%s: is done without a run, and is shown later: %s", one.run.name, error.message)
                self._works[key] = self._works.pop(key, one)
                return
            if run.state is not None and run.state.is_final():
                self._shown.discard(run.id)
                self._works.pop(key, None)

    async def _show(self, one: _Work) -> FlowRun:
        """The run of *one*, in the state it is to have; by its key, Prefect creates it once."""
        state = one.end or Running(message=f"{WHY}, since {clock(one.began)}")
        run = await self._created.create(one.run, state)
        self._shown.add(run.id)  # nobody executes it, and it is nobody's orphan
        if run.state is None or run.state.type != state.type:  # it was at work then, or its creation was not heard of
            await self._created.client.set_flow_run_state(run.id, state, force=True)
        one.is_shown = True
        return run.model_copy(update={"state": state})


def _end(one: _Work, state: State[Any]) -> None:
    took = f"done {WHY}, from {clock(one.began)} to {clock(time.time())}"
    one.end = state.model_copy(update={"message": f"{state.message}; {took}" if state.message else took, "data": None})
