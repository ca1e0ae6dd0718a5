"""Handles batches at once, without a run: the flow's own function is called here; the recorder shows them later."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from prefect.flows import Flow

from flows import tries, trouble
from flows.handling import noted
from flows.host import Host, claimed, current, log
from flows.streamer import releases
from lectern.effects.rows import inbox
from lectern.facts import Kept, Work
from lectern.messages import TAKE_BACK


class Handler:
    """Handles the batches of messages of a host, and its sweeps."""

    def __init__(self, host: Host[Any], flows: Mapping[str, Flow[..., Any]]) -> None:
        self._host = host
        self._flows = flows
        self._endings: set[asyncio.Task[None]] = set()

    async def handle(self, flow: str, kept: Sequence[Kept]) -> None:
        """Handle a batch to its end; messages that it does not handle are retried. Raises nothing; run it in a task."""
        current.set(self._host)
        claimed.set(kept)
        try:
            if flow == TAKE_BACK:
                await self._take_back(kept)
            else:
                await self._handle(flow, [one.id for one in kept])
        except Exception:  # noqa: BLE001 (whatever it is, the next batch is to be handled)
            log.exception("inbox: %d messages are tried again later, when their lease ends", len(kept))

    async def _handle(self, flow: str, ids: Sequence[int]) -> None:
        try:
            state = await self._flows[flow].fn(inbox_ids=inbox.spell(ids))
        except Exception as error:  # noqa: BLE001 (whatever it is, it is tried again, and given up at last)
            passes = await self._said(flow, error)
            await tries.after(self._host, ids, error, passes=passes, flow=flow)
        else:
            if state.is_failed() or state.is_crashed():
                await tries.failed(self._host, ids, flow, state.message or "")

    async def _said(self, flow: str, error: Exception) -> bool:
        """Log that *flow* has failed; returns whether that is because a service is away."""
        passes, why = await tries.is_away(self._host, error), trouble.words(error)
        if passes:
            log.warning("%s: interrupted: %s; its messages wait in the inbox", flow, why)
        else:
            log.error("%s: failed: %s", flow, why, exc_info=error)
        return passes

    async def sweep(self) -> None:
        """Sweep; a run shows a sweep that fails. Raises nothing; run it in a task."""
        current.set(self._host)
        began = time.time()
        try:
            try:
                await self._flows["sweep"].fn()
            except Exception as error:  # noqa: BLE001 (whatever it is, the next sweep is to come)
                if not await self._said("sweep", error):
                    name = f"sweep {self._host.settings.name}"
                    await noted(self._host, Work("sweep", name, began, error=trouble.words(error)))
        except Exception:  # noqa: BLE001 (whatever it is, the next sweep is to come)
            log.exception("sweep: its failure cannot be shown")

    async def _take_back(self, kept: Sequence[Kept]) -> None:
        stops = await releases.take_back(self._host, kept)
        ending = asyncio.create_task(releases.end_runs(self._host, stops))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
