"""From the bus into the inbox, from the inbox into runs: batches of what has arrived."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy.exc import OperationalError

from flows import labels, tries, trouble
from flows.host import Host
from flows.resident.runs import Refused
from flows.resident.works import Work
from flows.retry import backoff_s
from flows.streamer import releases
from flows.trouble import MustEnd
from lectern.body import as_text
from lectern.commands import TAKE_BACK, command_of
from lectern.effects import process
from lectern.effects.redis.hearing import Entry, Streams
from lectern.effects.rows import inbox
from lectern.effects.rows.inbox import Arrived
from lectern.errors import TryAgain
from lectern.facts import Kept

log = logging.getLogger("lectern")
QUEUE_BOUND = 20_000
BLOCK_MS = 1000
IDLE_S = 1.0
ONE_RUN = (1, 0)
"""So many runs of a flow are at work, and so many more that only tell how they went: what comes meanwhile is the next
one's. Each run costs Prefect several changes, and the fewer it has to make, the sooner it makes the next one."""

SEVERAL_RUNS = (2, 4)
RUSH = 500
"""Where so many messages wait, their number costs more than the runs do."""

HANGS_S = 2.0
"""A run that takes longer holds up nobody."""

PORTIONS = 20
"""Number of runs that are begun before new messages are looked for: what failed before holds up nothing new."""


class Intake:
    """The bus consumer of one host: parses nothing, decides nothing, loses nothing."""

    def __init__(
        self, host: Host[Any], groups: Mapping[str, str], channels: Sequence[str], streams: Sequence[str]
    ) -> None:
        self._host = host
        self._groups = groups  # command -> flow
        self._channels = channels
        self._streams = streams
        self._came = asyncio.Event()
        self._room = asyncio.Event()
        self._woken = {flow: asyncio.Event() for flow in groups.values()}
        self._waiting = dict.fromkeys(groups.values(), 0)  # how many messages at least are not in a run yet
        self._endings: set[asyncio.Task[None]] = set()
        self._batch: list[Arrived] = []  # what the channels brought, and is not committed
        self._refused: set[str] = set()  # flows whose last run Prefect refused

    def works(self) -> dict[str, Work]:
        """What is to be done at the same time, by names."""
        found: dict[str, Work] = {"streams": self._read_streams}
        if self._channels:
            found |= {"channels": self._listen, "messages of channels": self._commit_channels}
        return found | {f"inbox, {flow}": partial(self._dispatch, flow) for flow in self._woken}

    async def close(self) -> None:
        """At the end: what has reached us and is not committed would be forgotten with us."""
        if self._batch:
            await self._keep()

    # -- channels: forgotten by Redis as soon as they are sent -----------------------------------------------------

    async def _listen(self) -> None:
        self._host.rounds.come("channels")
        async with self._host.bus.subscribed(self._channels) as messages:
            log.info("%s: listens on %s", self._host.settings.name, ", ".join(self._channels))
            async for found in messages:
                self._host.rounds.come("channels")
                if found is not None:
                    self._batch.append(self._arrived("channel", *found))
                    self._came.set()
                if len(self._batch) >= QUEUE_BOUND:
                    self._room.clear()
                    await self._room.wait()

    async def _commit_channels(self) -> None:
        while True:
            self._host.rounds.come("messages of channels")
            if self._batch or await _soon(self._came):
                await asyncio.sleep(self._host.settings.batch_wait_s)  # few come alone
                self._came.clear()
                await self._keep()

    async def _keep(self) -> None:
        """Commit what the channels brought; it exists nowhere else, so a database that gives way is waited for."""
        for failures in range(1000):
            try:
                return await process.surely(self._keep_once())
            except OperationalError as error:
                log.error("inbox: %d messages wait to be written: %s", len(self._batch), error)
                await asyncio.sleep(backoff_s(failures))
        raise MustEnd(f"inbox: {len(self._batch)} messages could not be written; is the disk full?")

    async def _keep_once(self) -> None:
        batch = self._batch.copy()
        await self._host.commit(inbox.keep, self._host.journal, batch, time.time())
        del self._batch[: len(batch)]
        self._room.set()
        self._wake(batch)

    def _wake(self, kept: Sequence[Arrived]) -> None:
        for command, number in Counter(one.command for one in kept).items():
            flow = self._groups[command]
            self._waiting[flow] += number
            self._woken[flow].set()

    # -- streams: acknowledged after the commit --------------------------------------------------------------------

    async def _read_streams(self) -> None:
        settings = self._host.settings
        streams = self._host.bus.streams(self._streams, settings.name)
        while True:
            self._host.rounds.come("streams")
            entries = await streams.next(count=settings.batch_max, block_ms=BLOCK_MS)
            for name, why in streams.refusals().items():
                await trouble.unreadable(self._host, name, why)
            if entries:
                await self._take(streams, entries)

    async def _take(self, streams: Streams, entries: Sequence[Entry]) -> None:
        arrived = [self._arrived("stream", entry.stream, entry.body) for entry in entries]
        await self._host.commit(inbox.keep, self._host.journal, arrived, time.time())
        self._wake(arrived)
        await streams.acknowledge(entries)

    def _arrived(self, kind: str, name: str, body: str) -> Arrived:
        """The command decides which flow handles a message; one that can not be read goes where its channel goes."""
        body = as_text(body)
        command = command_of(body)
        if command not in self._groups:
            command = name if name in self._groups else next(iter(self._groups))
        return Arrived(f"{kind}:{name}", command, body)

    # -- from the inbox into runs ----------------------------------------------------------------------------------

    async def _dispatch(self, flow: str) -> None:
        failures = 0
        while True:
            self._host.rounds.come(f"inbox, {flow}")
            self._woken[flow].clear()
            await self._has_room(flow)
            kept = await self._host.commit(
                inbox.claim,
                self._host.journal,
                [command for command, its in self._groups.items() if its == flow],
                limit=self._host.settings.batch_max,
                lease_s=self._host.settings.inbox_lease_s,
                now=time.time(),
            )
            self._waiting[flow] = max(0, self._waiting[flow] - len(kept))
            if not kept:
                self._waiting[flow] = 0
                await _soon(self._woken[flow])
            elif not await self._handed_on(flow, kept, backoff_s(failures)):
                failures += 1
                await asyncio.sleep(backoff_s(failures))
            else:
                failures = 0

    async def _has_room(self, flow: str) -> None:
        if flow != TAKE_BACK:
            await self._host.runs.room(flow, *(SEVERAL_RUNS if self._waiting[flow] >= RUSH else ONE_RUN), HANGS_S)

    async def _handed_on(self, flow: str, kept: Sequence[Kept], pause_s: float) -> bool:
        """Begin the runs of *kept*; False where Prefect is away. Whatever fails, what has no run goes back."""
        left = {one.id for one in kept}
        try:
            if flow == TAKE_BACK:
                await self._take_back(kept)
                left = set()
            else:
                for portion in tries.portions(kept)[:PORTIONS]:
                    await self._has_room(flow)
                    await self._begin(flow, portion)
                    left -= {one.id for one in portion}
            pause_s = 0.0
        except TryAgain as error:
            log.warning("%d messages wait in the inbox: %s", len(left), error.message)
            return False
        finally:
            if left:
                again_at = time.time() + pause_s
                await self._host.commit(inbox.put_off, self._host.journal, sorted(left), again_at)
        return True

    async def _take_back(self, kept: Sequence[Kept]) -> None:
        stops = await releases.take_back(self._host, kept)
        ending = asyncio.create_task(releases.end_runs(self._host, stops))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def _begin(self, flow: str, mine: Sequence[Kept]) -> None:
        """Begin a run; where Prefect refused the last one, it has no labels: nothing of its messages is in it."""
        name, tags = labels.labels(flow, mine)
        if flow in self._refused:
            name, tags = labels.plain(flow, mine), []
        ids = [one.id for one in mine]
        key = f"{self._host.settings.name}:{flow}:{ids[0]}-{ids[-1]}:{max(one.tries for one in mine)}:{time.time():.3f}"
        try:
            await self._host.runs.start(flow, {"inbox_ids": inbox.spell(ids)}, name=name, tags=tags, key=key)
        except Refused:
            self._refused.add(flow)
            raise
        self._refused.discard(flow)


async def _soon(event: asyncio.Event) -> bool:
    """Wait for *event*, but not for long; whether it came."""
    try:
        async with asyncio.timeout(IDLE_S):
            return await event.wait()
    except TimeoutError:
        return False
