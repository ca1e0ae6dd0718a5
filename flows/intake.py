"""From the bus into the inbox, from the inbox into runs: batches of what has arrived."""

import asyncio
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from redis.exceptions import RedisError
from sqlalchemy.exc import OperationalError

from flows import release, stop, trouble
from flows.host import Host
from lectern import errors
from lectern.effects import disk, inbox, outbox, outgoing, process
from lectern.effects.hearing import Entry, Streams
from lectern.effects.inbox import Arrived, Kept
from lectern.errors import TryAgain
from lectern.messages import command_of

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

TAKE_BACK = "take back"
"""Stands for a flow where none is: classes are taken from a streamer here and now, whoever is away."""

TAGS = 40
BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0)


def backoff_s(tries: int) -> float:
    """How long to wait after *tries* failures in a row: up to 10 s, with jitter."""
    return BACKOFF_S[min(tries, len(BACKOFF_S) - 1)] * random.uniform(0.8, 1.2)  # noqa: S311 (no secret)


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

    async def run(self) -> None:
        """Consume until cancelled; a Redis that is away is waited for, with backoff."""
        try:
            async with asyncio.TaskGroup() as group:
                if self._channels:
                    group.create_task(self._again("channels", self._listen))
                    group.create_task(self._commit_channels())
                group.create_task(self._again("streams", self._read_streams))
                for flow in self._woken:
                    group.create_task(self._again(f"inbox, {flow}", partial(self._dispatch, flow)))
        finally:
            await asyncio.shield(self._keep_rest())

    async def _again(self, what: str, work: Any) -> None:  # noqa: ANN401 (a bound method)
        tries = 0
        while True:
            began = time.monotonic()
            try:
                await work()
            except (RedisError, OSError, OperationalError) as error:
                tries = 0 if time.monotonic() - began > 60 else tries + 1
                pause = backoff_s(tries)
                log.warning("%s: interrupted, again in %.1f s: %s", what, pause, error)
                if disk.takes_nothing(error):
                    await trouble.cry(self._host, what, error)
                await asyncio.sleep(pause)

    # -- channels: forgotten by Redis as soon as they are sent -----------------------------------------------------

    async def _listen(self) -> None:
        async with self._host.bus.subscribed(self._channels) as messages:
            log.info("%s: listens on %s", self._host.settings.name, ", ".join(self._channels))
            async for found in messages:
                if found is not None:
                    self._batch.append(self._arrived("channel", *found))
                    self._came.set()
                if len(self._batch) >= QUEUE_BOUND:
                    self._room.clear()
                    await self._room.wait()

    async def _commit_channels(self) -> None:
        while True:
            await self._came.wait()
            await asyncio.sleep(self._host.settings.batch_wait_s)  # few come alone
            self._came.clear()
            await self._keep()

    async def _keep(self) -> None:
        """Commit what the channels brought; it exists nowhere else, so a database that gives way is waited for."""
        for tries in range(1000):
            try:
                return await process.surely(self._keep_once())
            except OperationalError as error:
                log.error("inbox: %d messages wait to be written: %s", len(self._batch), error)
                await asyncio.sleep(backoff_s(tries))
        raise errors.CallAPerson(f"inbox: {len(self._batch)} messages could not be written; is the disk full?")

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

    async def _keep_rest(self) -> None:
        """At the end: what has reached us and is not committed would be forgotten with us."""
        if self._batch:
            await self._keep()

    # -- streams: acknowledged after the commit --------------------------------------------------------------------

    async def _read_streams(self) -> None:
        settings = self._host.settings
        streams = self._host.bus.streams(self._streams, settings.name)
        while True:
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
        command = command_of(body)
        if command not in self._groups:
            command = name if name in self._groups else next(iter(self._groups))
        return Arrived(f"{kind}:{name}", command, body)

    # -- from the inbox into runs ----------------------------------------------------------------------------------

    async def _dispatch(self, flow: str) -> None:
        failures = 0
        while True:
            self._woken[flow].clear()
            settings = self._host.settings
            if flow != TAKE_BACK:
                await self._host.runs.room(flow, *(SEVERAL_RUNS if self._waiting[flow] >= RUSH else ONE_RUN), HANGS_S)
            kept = await self._host.commit(
                inbox.claim,
                self._host.journal,
                [command for command, its in self._groups.items() if its == flow],
                limit=settings.batch_max,
                lease_s=settings.inbox_lease_s,
                now=time.time(),
            )
            self._waiting[flow] = max(0, self._waiting[flow] - len(kept))
            if not kept:
                self._waiting[flow] = 0
                await self._sleep(flow)
            elif flow == TAKE_BACK:
                await self._take_back(kept)
            else:
                failures = 0 if await self._start(flow, kept, backoff_s(failures)) else failures + 1
                if failures:
                    await asyncio.sleep(backoff_s(failures))

    async def _take_back(self, kept: Sequence[Kept]) -> None:
        stops = await release.take_back(self._host, kept)
        ending = asyncio.create_task(stop.in_prefect(self._host, stops))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def _sleep(self, flow: str) -> None:
        try:
            await asyncio.wait_for(self._woken[flow].wait(), IDLE_S)
        except TimeoutError:
            return

    async def _start(self, flow: str, kept: Sequence[Kept], pause_s: float) -> bool:
        """Begin a run; False where Prefect is away, and the messages go back to the inbox."""
        tries = self._host.settings.inbox_tries
        await self._give_up([one for one in kept if one.tries >= tries])
        mine = [one for one in kept if one.tries < tries]
        try:
            if mine:
                await self._begin(flow, mine)
        except TryAgain as error:
            log.warning("%d messages wait in the inbox: %s", len(mine), error.message)
            ids = [one.id for one in mine]
            await self._host.commit(inbox.unclaim, self._host.journal, ids, time.time() + pause_s)
            return False
        return True

    async def _begin(self, flow: str, mine: Sequence[Kept]) -> None:
        names, tags = _labels(mine)
        title = f"{flow} {names[0]}" if len(mine) == 1 and names else f"{flow} {len(mine)} messages"
        ids = [one.id for one in mine]
        key = f"{self._host.settings.name}:{flow}:{ids[0]}-{ids[-1]}:{max(one.tries for one in mine)}:{time.time():.3f}"
        await self._host.runs.start(flow, {"inbox_ids": inbox.spell(ids)}, name=title, tags=tags[:TAGS], key=key)

    async def _give_up(self, kept: Sequence[Kept]) -> None:
        if kept:
            await self._host.commit(self._bury, kept)

    def _bury(self, connection: Any, kept: Sequence[Kept]) -> None:  # noqa: ANN401 (a Connection)
        now = time.time()
        for one in kept:
            why = f"not handled in {one.tries} runs; see their logs"
            log.error("inbox %d: %s", one.id, why)
            inbox.bury(connection, self._host.journal, one, why, self._host.settings.dead_letter_stream, now)
        cry = outgoing.alarm(
            errors.DEAD_LETTER, f"{len(kept)} messages could not be handled", now, self._host.settings.name
        )
        outbox.put(connection, self._host.journal, [self._host.alarm(cry)], now)


def _labels(kept: Sequence[Kept]) -> tuple[list[str], list[str]]:
    """What the run is about, for the person who searches: class_ids, else renditions; and the tags."""
    names: list[str] = []
    tags: list[str] = []
    for one in kept[:TAGS]:
        try:
            fields = json.loads(one.body)
        except ValueError:
            continue
        if not isinstance(fields, dict):
            continue
        class_id, record_id, size = fields.get("class_id"), fields.get("record_id"), fields.get("video_resolution")
        if isinstance(class_id, str):
            tags.append(f"class:{class_id[:250]}")
            names.append(class_id[:250])
        if isinstance(record_id, int):
            tags.append(f"record:{record_id}")
            names += [] if isinstance(class_id, str) else [f"{record_id} {size}"]
    return names, list(dict.fromkeys(tags))
