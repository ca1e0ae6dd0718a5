"""Commits messages from the bus to the inbox, and handles them in batches, without a run: they are shown later."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from secrets import token_hex
from typing import Any

from prefect.flows import Flow
from sqlalchemy.exc import OperationalError

from flows import failures
from flows.failures import FatalError
from flows.handling import noted
from flows.host import Host, StreamerHost, claimed, current
from flows.resident import routing, supervisor
from flows.streamer import lease
from lectern.db import inbox
from lectern.db.inbox import ReceivedMessage
from lectern.errors import Caught
from lectern.i18n import Text
from lectern.model.facts import InboxMessage, UnrecordedWork
from lectern.timing import backoff_s, comes, shielded
from lectern.wire.messages import TAKE_BACK
from lectern.wire.parser import MAX_BODY_BYTES, PUBLISHED, Body, command_of, is_own_result

log = logging.getLogger("lectern")
QUEUE_BOUND = 20_000
BLOCK_MS = 1000
IDLE_S = 1.0
HANGS_S = 2.0  # seconds after which a batch no longer holds up the next ones
AT_WORK = 8  # number of batches of a flow that may be at work at the same time: more than one only if some hang
BATCH_SIZE_BY_FAILURES = (1000, 64, 8)
"""Most messages in a run after 0, 1 and 2 failures of each; a message that failed more often is alone in its run.

A larger run would handle no message sooner, and the next host would have nothing to do until all are handled.
"""


class Handler:
    """Handles the batches of messages of a host, and its sweeps."""

    def __init__(self, host: Host[Any], flows: Mapping[str, Flow[..., Any]]) -> None:
        self._host = host
        self._flows = flows
        self._endings: set[asyncio.Task[None]] = set()

    async def handle(self, flow: str, kept: Sequence[InboxMessage]) -> None:
        """Handle a batch to its end; messages that it does not handle are retried. Raises nothing; run it in a task."""
        current.set(self._host)
        claimed.set(kept)
        with Caught() as failed:
            if flow == TAKE_BACK:
                await self._take_back(kept)
            else:
                state = await self._flows[flow].fn(inbox_ids="")  # it takes what this task has claimed
                if state is not None and (state.is_failed() or state.is_crashed()):
                    await failures.failed(self._host, _ids(), flow, state.message or "")
        if failed.error is None:
            return
        # What can be neither handled nor put back is retried when its lease ends.
        async with failures.isolated(self._host, flow, self._host.settings.inbox_lease_s, through=()):
            passes = await self._said(flow, failed.error)
            shown = None if flow == TAKE_BACK else flow  # releases and leases are no runs
            await failures.after_failure(self._host, _ids(), failed.error, passes=passes, flow=shown)

    async def _take_back(self, kept: Sequence[InboxMessage]) -> None:
        assert isinstance(self._host, StreamerHost), "only a streamer has a stream from which these messages come"
        stops = await lease.take_back(self._host, kept)
        ending = asyncio.create_task(lease.end_runs(self._host, stops))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def _said(self, flow: str, error: Exception) -> bool:
        """Log that *flow* has failed; returns whether that is because a service is away."""
        passes, why = await failures.is_away(self._host, error), failures.words(error)
        if passes:
            log.warning("%s: interrupted: %s; its messages wait in the inbox", flow, why)
        else:
            log.error("%s: failed: %s", flow, why, exc_info=error)
        return passes

    async def sweep(self) -> None:
        """Sweep; a run shows a sweep that fails. Raises nothing; run it in a task."""
        current.set(self._host)
        began = time.time()
        async with failures.isolated(self._host, Text("sweep"), through=()):
            with Caught() as failed:
                await self._flows["sweep"].fn()
            if failed.error is not None and not await self._said("sweep", failed.error):
                name = f"sweep {self._host.settings.name}"
                await noted(self._host, UnrecordedWork("sweep", name, began, error=failures.words(failed.error)))


def _ids() -> list[int]:
    """The messages that this task has claimed, without those that its flow has put off."""
    return [message.id for message in claimed.get()]


def batches(kept: Sequence[InboxMessage]) -> list[list[InboxMessage]]:
    """Split messages into runs: those that never failed stay together; the more often they failed, the fewer."""
    found: list[list[InboxMessage]] = []
    for tries in sorted({min(one.tries, len(BATCH_SIZE_BY_FAILURES)) for one in kept}):
        some = [one for one in kept if min(one.tries, len(BATCH_SIZE_BY_FAILURES)) == tries]
        size = BATCH_SIZE_BY_FAILURES[tries] if tries < len(BATCH_SIZE_BY_FAILURES) else 1
        found += [some[first : first + size] for first in range(0, len(some), size)]
    return found


class Consumer:
    """The bus consumer of one host: parses nothing, decides nothing, loses nothing."""

    def __init__(self, host: Host[Any], handler: Handler) -> None:
        self._host = host
        self._handler = handler
        self._groups = routing.of(host.settings)
        self._commands = routing.sources(host.settings)
        # The channels; the streams of the same names are read, too.
        self._channels = [name for name, command in self._commands.items() if command in PUBLISHED]
        self._came = asyncio.Event()
        self._room = asyncio.Event()
        self._woken = {flow: asyncio.Event() for flow in self._groups.values()}
        self._claimed: dict[str, list[InboxMessage]] = {flow: [] for flow in self._woken}  # and not handled yet
        self._claimed_at = dict.fromkeys(self._woken, 0.0)  # when the inbox was last searched, monotonic
        self._left = set(self._woken)  # flows that may have unclaimed messages
        self._at_work: dict[str, set[asyncio.Task[None]]] = {flow: set() for flow in self._woken}
        self._batch: list[ReceivedMessage] = []  # messages of channels that are not committed yet

    def works(self) -> dict[Text, supervisor.Service]:
        """The loops to run side by side, by name."""
        services: dict[Text, supervisor.Service] = {Text("streams"): self._read_streams}
        if self._channels:
            services |= {Text("channels"): self._listen, Text("messages of channels"): self._commit_channels}
        return services | {Text("inbox, {flow}", flow=flow): partial(self._dispatch, flow) for flow in self._woken}

    async def close(self, within_s: float) -> None:
        """Commit what the channels brought, which exists nowhere else, and give the batches at work time to end."""
        if self._batch:
            await self._keep()
        left = {task for tasks in self._at_work.values() for task in tasks}
        if left:
            _, left = await asyncio.wait(left, timeout=within_s)
        for task in left:
            task.cancel("drained")

    # -- channels: forgotten by Redis as soon as they are sent -----------------------------------------------------

    async def _listen(self) -> None:
        self._host.watchdog.beat("channels")
        hearing = self._host.bus.hearing
        async with hearing.subscribed(self._channels) as messages:
            log.info("%s: listens on %s", self._host.settings.name, ", ".join(self._channels))
            async for arrival in messages:
                self._host.watchdog.beat("channels")
                if arrival is not None:
                    message = self._arrived("channel", *arrival, since=hearing.sent_since)
                    if not is_own_result(message.body):
                        self._batch.append(message)
                        self._came.set()
                if len(self._batch) >= QUEUE_BOUND:
                    self._room.clear()
                    await self._room.wait()

    async def _commit_channels(self) -> None:
        while True:
            self._host.watchdog.beat("messages of channels")
            if self._batch or await comes(self._came, IDLE_S):
                await asyncio.sleep(self._host.settings.batch_wait_s)  # messages seldom come alone
                self._came.clear()
                await self._keep()

    async def _keep(self) -> None:
        """Commit messages of channels, which exist nowhere else; retries often, then raises FatalError."""
        batch, name = self._batch.copy(), token_hex(6)
        for tries in range(1000):  # not left to `Supervisor`: a try must have the name of the one before
            try:
                return await shielded(self._keep_once(batch, name))
            except OperationalError as error:
                log.error("inbox: %d messages wait to be written: %s", len(self._batch), error)
                await asyncio.sleep(backoff_s(tries))
        raise FatalError(Text("inbox: {n:,} messages could not be written; is the disk full?", n=len(self._batch)))

    async def _keep_once(self, batch: Sequence[ReceivedMessage], name: str) -> None:
        await self.commit(batch, name)
        del self._batch[: len(batch)]
        self._room.set()

    async def commit(self, arrived: Sequence[ReceivedMessage], name: str = "") -> None:
        """Commit *arrived* as the batch *name*; messages to be handled at once are claimed in the same transaction."""
        host, settings, now = self._host, self._host.settings, time.time()
        flows = {self._groups[message.command] for message in arrived}
        if settings.shared:
            await host.write_tx(inbox.keep_paired, arrived, settings.name, now, name)
        elif any(flow in self._left or len(self._claimed[flow]) >= QUEUE_BOUND for flow in flows):
            self._left |= flows  # they have to wait: later all messages are claimed together, in their order
            await host.write_tx(inbox.keep, arrived, now)
            self._left |= flows
        else:
            for message in await host.write_tx(inbox.keep_claimed, arrived, now, settings.inbox_lease_s):
                self._claimed[self._groups[message.command]].append(message)
        for flow in flows:
            self._woken[flow].set()

    # -- streams: acknowledged after the commit --------------------------------------------------------------------

    async def _read_streams(self) -> None:
        settings = self._host.settings
        streams = self._host.bus.streams([*self._commands], settings.name, shared=settings.shared)
        # An entry that is read but not committed reaches no other consumer, so see first that the database answers.
        await self._host.write_tx(inbox.answers)
        while True:
            self._host.watchdog.beat("streams")
            entries = await streams.next(count=self._host.settings.batch_max, block_ms=BLOCK_MS)
            while streams.refused:
                await failures.refused_stream(self._host, *streams.refused.popitem())
            if entries:
                await self.commit([self._arrived("stream", entry.stream, entry.body, entry.id) for entry in entries])
                await streams.acknowledge(entries)
            await streams.trim()

    def _arrived(self, kind: str, name: str, body: str, entry: str = "", since: float | None = None) -> ReceivedMessage:
        """The command decides which flow handles a message; without a known command, its channel or stream does."""
        # No database stores a NUL byte; escaped, the body stays malformed, as does a body cut off after the bound.
        body = Body(body.replace("\0", "\\u0000")[: MAX_BODY_BYTES + 1])
        command = command_of(body)
        if command not in self._groups:
            command = self._commands.get(name) or next(iter(self._groups))
        return ReceivedMessage(f"{kind}:{name}", command, body, entry, time.time(), since)

    # -- out of the inbox ------------------------------------------------------------------------------------------

    async def _dispatch(self, flow: str) -> None:
        """Handle waiting messages in batches; one that hangs goes on in the background, and holds up no other."""
        at_work = self._at_work[flow]
        while True:
            self._host.watchdog.beat(f"inbox, {flow}")
            self._woken[flow].clear()
            claimed: list[InboxMessage] = []
            if not self._claimed[flow] or flow in self._left or time.monotonic() - self._claimed_at[flow] > IDLE_S:
                claimed = await self._claim(flow)
            # A message whose lease expired here is claimed twice; what had to wait is older than what has come since.
            both = {message.id: message for message in (*claimed, *self._claimed[flow])}
            kept, self._claimed[flow] = [both[id_] for id_ in sorted(both)], []
            if not kept:
                await comes(self._woken[flow], IDLE_S)
            for portion in batches(kept):
                self._host.watchdog.beat(f"inbox, {flow}")
                task = asyncio.create_task(self._handler.handle(flow, portion))
                at_work.add(task)
                task.add_done_callback(at_work.discard)
                await asyncio.wait({task}, timeout=HANGS_S)
                while len(at_work) >= AT_WORK:
                    self._host.watchdog.beat(f"inbox, {flow}")
                    await asyncio.wait(at_work, timeout=HANGS_S, return_when=asyncio.FIRST_COMPLETED)

    async def _claim(self, flow: str) -> list[InboxMessage]:
        """Claim waiting messages: those that came while others were handled, and those that are due for a retry."""
        settings = self._host.settings
        self._claimed_at[flow] = time.monotonic()
        self._left.discard(flow)
        if settings.shared and self._host.redis_away:
            return []  # without Redis no answer could be sent; another teacher may reach it
        claimed = await self._host.write_tx(
            inbox.claim,
            [command for command, group in self._groups.items() if group == flow],
            limit=settings.batch_max,
            lease_s=settings.inbox_lease_s,
            now=time.time(),
            owner=settings.name if settings.shared else None,
        )
        if len(claimed) == settings.batch_max:
            self._left.add(flow)
        return claimed
