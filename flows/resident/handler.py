"""Handles batches at once, without a run: the flow's own function is called here; the recorder shows them later."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from prefect.client.schemas.objects import State
from prefect.flows import Flow

from flows import tries, trouble
from flows.handling import noted
from flows.host import Host, claimed, current, log
from flows.streamer import releases
from lectern.effects.rows import inbox
from lectern.errors import Caught
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
        # What can be neither handled nor put back is retried when its lease ends.
        async with trouble.isolated(self._host, flow, self._host.settings.inbox_lease_s, through=()):
            if flow == TAKE_BACK:
                await self._take_back(kept)
            else:
                await self._handle(flow, [one.id for one in kept])

    async def _handle(self, flow: str, ids: Sequence[int]) -> None:
        state: State[Any] | None = None
        with Caught() as failed:
            state = await self._flows[flow].fn(inbox_ids=inbox.spell(ids))
        if failed.error is not None:
            passes = await self._said(flow, failed.error)
            await tries.after(self._host, ids, failed.error, passes=passes, flow=flow)
        elif state is not None and (state.is_failed() or state.is_crashed()):
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
        async with trouble.isolated(self._host, "sweep", through=()):
            with Caught() as failed:
                await self._flows["sweep"].fn()
            if failed.error is not None and not await self._said("sweep", failed.error):
                name = f"sweep {self._host.settings.name}"
                await noted(self._host, Work("sweep", name, began, error=trouble.words(failed.error)))

    async def _take_back(self, kept: Sequence[Kept]) -> None:
        stops = await releases.take_back(self._host, kept)
        ending = asyncio.create_task(releases.end_runs(self._host, stops))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
