"""Work that was done without a run because Prefect took none, until a run shows it: there a person tries it again."""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.new_run import NewRun
from flows.resident.creation import Creation
from flows.resident.prefect_client import asking
from lectern.errors import LecternError, TryAgain
from lectern.runs.pages import clock

log = logging.getLogger("lectern")
KEPT = 1000
"""Number of works that wait to be shown; of more, the oldest ones are not."""

TAG = "lectern:without-run"


@dataclass(frozen=True)
class _Done:
    run: NewRun
    state: State[Any]


class Alone:
    """What is at work without a run, and what was; each is shown once."""

    def __init__(self, created: Creation) -> None:
        self._created = created
        self._at_work: set[str] = set()
        self._done: dict[str, _Done] = {}

    def keys(self) -> set[str]:
        """The keys of the runs whose work is done here: Prefect may have created them without our hearing of it."""
        return self._at_work | set(self._done)

    async def do(self, run: NewRun, work: Callable[..., Awaitable[Any]]) -> None:
        """Do the work of *run*, and keep how it ended; raises what the work raises."""
        run = replace(run, key=run.key or uuid4().hex, tags=(*run.tags, TAG))
        key, began = str(run.key), time.time()
        self._at_work.add(key)
        try:
            found = await work(**run.parameters)
        except Exception as error:
            words = error.message if isinstance(error, LecternError) else repr(error)
            self._keep(key, run, Failed(message=words), began)
            raise
        else:
            self._keep(key, run, found if isinstance(found, State) else Completed(), began)
        finally:
            self._at_work.discard(key)

    def _keep(self, key: str, run: NewRun, state: State[Any], began: float) -> None:
        took = f"done without a run from {clock(began)} to {clock(time.time())}, because Prefect took none"
        message = f"{state.message}; {took}" if state.message else took
        self._done[key] = _Done(run, state.model_copy(update={"message": message, "data": None}))
        while len(self._done) > KEPT:
            oldest = self._done.pop(next(iter(self._done)))
            log.warning("%s: was done without a run, and none shows it: %d others wait", oldest.run.name, KEPT)

    async def show(self) -> None:
        """Create the runs in their final states, until Prefect does not take one; that one is the last to be tried."""
        for key, one in list(self._done.items()):
            try:
                with asking():
                    run = await self._created.create(one.run, one.state)
                    if run.state is None or not run.state.is_final():  # created when we did not hear of it
                        await self._created.client.set_flow_run_state(run.id, one.state, force=True)
            except TryAgain as error:
                log.info("%s: was done without a run, and is shown later: %s", one.run.name, error.message)
                self._done[key] = self._done.pop(key)
                return
            del self._done[key]
