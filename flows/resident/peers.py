"""Teachers that share their rows look after each other: what a dead one had claimed is taken up by the living."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from flows.host import Teacher, log
from flows.resident import orphans
from flows.resident.queue_lock import lock_key
from flows.resident.record import Recorder
from flows.resident.runs import ResidentRuns
from flows.retry import AWAY
from flows.tell import tell
from lectern.effects.rows import peers
from lectern.errors import TryAgain

LOOK_S = 3.0
"""Seconds between two looks. A teacher without its lock in Redis at two of them is dead: a Redis that has forgotten the
locks has those of the living again within 4 s."""

SILENT_S = 9.0
"""Seconds after which a teacher that notes nothing in the rows is as good as dead: it has no way to the database, or
stands still. They are counted here, so the clocks of the hosts may differ."""

ASKED_S = 5.0
"""Seconds that Redis has to say who holds its lock."""

AGAIN_S = 30.0
"""Seconds between two looks at what a dead one has: whoever only lacked its lock may have claimed something since."""


class Peers:
    """The other teachers, as one of them sees them."""

    def __init__(
        self, host: Teacher, runs: ResidentRuns, recorder: Recorder, sweep: Callable[[], Awaitable[None]]
    ) -> None:
        self._host = host
        self._sweep = sweep  # what a dead one had decided, and not begun, is begun
        self._runs = runs
        self._recorder = recorder
        self._missing: dict[str, float] = {}  # who has no lock or notes nothing, and since when, monotonic
        self._noted: dict[str, tuple[float, float]] = {}  # what each noted last, and when that was seen, monotonic
        self._again_at: dict[str, float] = {}  # when a dead one is looked at again, monotonic
        self._dead: set[str] = set()
        self._unadopted: set[str] = set()  # dead ones whose runs in Prefect wait to be taken up

    async def run(self) -> None:
        """Look until cancelled; while Redis is away nobody is taken for dead."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._note(), name="peers, note")
            group.create_task(self._adopt(), name="peers, adopt")
            group.create_task(self._look_again_and_again(), name="peers, look")

    async def _note(self) -> None:
        """Say in the rows that this one is there: by itself, for a look can take long, and Prefect longer."""
        while True:
            try:
                await self._host.commit(peers.note, self._host.settings.name, time.time())
            except SQLAlchemyError as error:
                log.warning("database: the others cannot see that this teacher is there: %s", error)
            await asyncio.sleep(LOOK_S)

    async def _look_again_and_again(self) -> None:
        while True:
            self._host.rounds.come("peers")
            try:
                await self._look()
            except (RedisError, OSError) as error:
                self._missing.clear()
                # What this one has claimed it cannot tell anybody of; the others may.
                await self._host.commit(peers.free, self._host.settings.name, self._host.settings.name)
                log.warning("redis: it cannot be seen which teachers are alive: %s", error)
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        host = self._host
        silent = self._silent(await host.look(peers.noted, host.settings.name))
        async with asyncio.timeout(ASKED_S):
            gone = {name for name in self._noted if name in silent or await host.bus.holder(lock_key(name)) is None}
        now = time.monotonic()
        self._missing = {name: self._missing.get(name, now) for name in gone}
        dead = {name for name, since in self._missing.items() if now - since > LOOK_S * 1.5}
        self._again_at = {name: self._again_at.get(name, now) for name in dead}
        if due := {name for name in dead if self._again_at[name] <= now}:
            for name in sorted(due & await host.look(peers.claiming)):
                await self._take_over(name)
            await self._sweep()
            self._unadopted |= due
            self._again_at |= dict.fromkeys(due, now + AGAIN_S)
        self._dead = dead
        await tell(host)  # also what another could not send, and gave back

    def _silent(self, noted: Mapping[str, float]) -> set[str]:
        """Who has not noted for some time that it is there."""
        now = time.monotonic()
        before = self._noted
        self._noted = {name: (at, now) for name, at in noted.items()}
        self._noted |= {name: before[name] for name, at in noted.items() if name in before and before[name][0] == at}
        return {name for name, (_, since) in self._noted.items() if now - since > SILENT_S}

    async def _take_over(self, name: str) -> None:
        number = await self._host.commit(peers.free, name, self._host.settings.name)
        log.warning("%s: is dead; %d messages that it had claimed are taken over", name, number)
        self._recorder.look_back()

    async def _adopt(self) -> None:
        """Take up the runs of the dead, by itself: Prefect may take minutes, and their messages wait for a look."""
        settings = self._host.settings
        while True:
            await asyncio.sleep(LOOK_S)
            for name in sorted(self._unadopted & self._dead):
                try:
                    await orphans.adopt(self._runs, settings.work_pool, settings.queue, name)
                except (TryAgain, *AWAY) as error:
                    log.warning("prefect: the runs of %s are taken up later: %r", name, error)
                    break
                self._unadopted.discard(name)
