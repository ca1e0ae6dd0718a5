"""Handles batches at once, without a run: the flow's own function is called here; the recorder shows them later."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from prefect.client.schemas.objects import State
from prefect.flows import Flow

from flows import tries, trouble
from flows.handling import PUT_BACK
from flows.host import Host, current, log
from flows.resident.record import Recorder
from flows.streamer import releases
from lectern.messages import TAKE_BACK
from lectern.runs.handled import Handled, of_batch


class Handler:
    """Handles the batches of messages of a host, and its sweeps."""

    def __init__(self, host: Host[Any], flows: Mapping[str, Flow[..., Any]], recorder: Recorder) -> None:
        self._host = host
        self._flows = flows
        self._recorder = recorder
        self._endings: set[asyncio.Task[None]] = set()

    async def handle(self, batch: Handled) -> None:
        """Handle a batch to its end; messages that it does not handle are retried. Raises nothing; run it in a task."""
        current.set(self._host)
        of_batch.set(batch)
        try:
            if batch.flow == TAKE_BACK:
                await self._take_back(batch)
                return
            with self._recorder.showing(batch):
                error: Exception | None = None
                state: State[Any] | None = None
                try:
                    state = await self._flows[batch.flow].fn(**batch.parameters)
                except Exception as failure:  # noqa: BLE001 (whatever it is, it is tried again, and given up at last)
                    error = failure
                await self._noted(batch, state, error)
        except Exception:  # noqa: BLE001 (whatever it is, the next batch is to be handled)
            log.exception("inbox: %d messages are tried again later, when their lease ends", len(batch.kept))

    async def _noted(self, batch: Handled, state: State[Any] | None, error: Exception | None) -> None:
        """Note what came of a batch; if that fails, it counts as put back, so that a run that shows it ends, too."""
        try:
            await self._ended(batch, state, error)
        except Exception as failure:  # noqa: BLE001 (whatever it is, the next batch is to be handled)
            log.exception("inbox: %d messages are tried again later, when their lease ends", len(batch.kept))
            batch.silent, batch.undone = True, frozenset(batch.ids)
            batch.failed = batch.failed or trouble.words(failure)
        batch.ended = time.time()

    async def _ended(self, batch: Handled, state: State[Any] | None, error: Exception | None) -> None:
        """Note what came of a batch, and put back what it has not handled."""
        batch.message = (state.message if state is not None else None) or "done"
        if error is not None:
            passes = await tries.is_away(self._host, error)
            batch.silent, batch.failed = passes, trouble.words(error)
            if passes:
                log.warning("%s: interrupted: %s; its messages wait in the inbox", batch.flow, batch.failed)
            else:
                log.error("%s: failed: %s", batch.flow, batch.failed, exc_info=error)
            batch.undone = frozenset(await tries.after(self._host, batch.ids, error, passes=passes))
        elif state is not None and state.name == PUT_BACK:
            batch.silent = True
            batch.undone = frozenset(await tries.left(self._host, batch.ids))
        elif state is not None and (state.is_failed() or state.is_crashed()):
            batch.failed = batch.message
            batch.undone = frozenset(await tries.failed(self._host, batch.ids))

    async def _take_back(self, batch: Handled) -> None:
        stops = await releases.take_back(self._host, batch.kept)
        ending = asyncio.create_task(releases.end_runs(self._host, stops))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
