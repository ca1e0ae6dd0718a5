"""Teachers that share their rows look after each other: what a dead one had claimed is taken up by the living."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy.exc import SQLAlchemyError

from flows.host import TELLING, TeacherHost, log
from flows.outbox_publisher import publish_outbox
from flows.resident.prefect import worker
from flows.resident.prefect.runs import ResidentRuns
from flows.resident.supervisor import Service
from lectern.db import leases
from lectern.errors import TryAgain
from lectern.i18n import Text
from lectern.redis.connection import asking
from lectern.timing import comes

LOOK_S = 2.0  # seconds between two rounds in which a teacher notes that it is there, and sees who else is
SILENT = 4
"""Rounds of this teacher without a note of another one, after which that one counts as dead: it ended, stands still, or
cannot reach the database. Rounds are counted, not seconds: a slow machine slows both teachers, and no silence grows
while the database is away. So what a dead teacher had claimed is free 6 to 10 s after its death."""

STANDS_S = 5.0
"""Seconds after which a dead teacher's transaction is ended if it blocks all writers; the teacher died even earlier."""

ASKED_S = 5.0  # seconds that Redis has to answer
AGAIN_S = 30.0
"""Seconds between two looks at a dead teacher's claims: if it only stood still, it may have claimed more since."""


class Peers:
    """The other teachers, as one of them sees them."""

    def __init__(self, host: TeacherHost, runs: ResidentRuns, sweep: Callable[[], Awaitable[bool]]) -> None:
        self._host = host
        self._sweep = sweep  # returns False if a sweep is at work already
        self._unswept = asyncio.Event()  # set if work that a dead teacher decided may not have begun
        self._runs = runs
        self._noting = ThreadPoolExecutor(1, thread_name_prefix="peers")  # threads for transactions may all wait
        self._noted: Mapping[str, float] = {}  # the time in each teacher's last note
        self._rounds: Mapping[str, int] = {}  # rounds of this teacher since each other's last note
        self._found = asyncio.Event()  # set when another teacher is found dead
        self._again_at: dict[str, float] = {}  # when a dead teacher is looked at again, monotonic
        self._unadopted: set[str] = set()  # dead teachers whose runs in Prefect wait to be taken up

    def works(self) -> dict[Text, Service]:
        """The loops to run side by side, by name: if one fails, the others still show that this teacher is alive.

        A teacher without Redis takes no other for dead, and gives back what it has claimed.
        """
        return {
            Text("peers"): self._look_again_and_again,
            Text("peers, note"): self._note,
            Text("peers, sweep"): self._sweep_after,
            Text("peers, adopt"): self._adopt,
        }

    async def _note(self) -> None:
        """Do the rounds in a thread of their own, which waits for no other writer."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(self._noting, self._go_round)
            except SQLAlchemyError as error:
                log.warning("database: the others cannot see that this teacher is there: %s", error)
            if SILENT in self._rounds.values():
                self._found.set()
            await asyncio.sleep(LOOK_S)

    def _go_round(self) -> None:
        """Note that this teacher is there, count the others' silent rounds, end transactions of dead ones."""
        name = self._host.settings.name
        with self._host.engine.begin() as connection:  # nobody else writes this row, so it need not wait for writers
            leases.note_teacher(connection, name, time.time())
            noted = leases.noted_teachers(connection, name)
        silent = {teacher for teacher, at in noted.items() if self._noted.get(teacher) == at}
        self._rounds = {teacher: self._rounds.get(teacher, 0) + 1 if teacher in silent else 0 for teacher in noted}
        self._noted = noted
        if dead := self._silent():
            with self._host.engine.begin() as connection:
                for teacher in leases.cut_off(connection, dead, STANDS_S):
                    log.warning("%s: held up all writers in the database, and is dead; its session is ended", teacher)

    def _silent(self) -> set[str]:
        return {name for name, rounds in self._rounds.items() if rounds >= SILENT}

    async def _look_again_and_again(self) -> None:
        while True:
            self._host.watchdog.beat("peers")
            try:
                await self._look()
            except TryAgain as error:
                # Without Redis, this teacher cannot send the answers to what it has claimed; the others may be able to.
                name = self._host.settings.name
                await self._host.write_tx(leases.free_claims, name, name, keeps=(TELLING,))
                log.warning("redis: away; the others take up what this teacher had claimed: %r", error)
            await comes(self._found, LOOK_S)
            self._found.clear()

    async def _look(self) -> None:
        host = self._host
        async with asking(ASKED_S):
            await host.bus.now()
        dead = self._silent()
        now = time.monotonic()
        self._again_at = {name: self._again_at.get(name, now) for name in dead}
        due = {name for name in dead if self._again_at[name] <= now}
        for name in sorted(due & await host.read_tx(leases.claiming_teachers) if due else ()):
            number = await host.write_tx(leases.free_claims, name, host.settings.name)
            log.warning("%s: is dead; %d messages that it had claimed are taken over", name, number)
        await publish_outbox(host)  # also messages that another teacher could not send
        if due:
            self._unadopted |= due
            self._again_at |= dict.fromkeys(due, now + AGAIN_S)
            self._unswept.set()

    async def _sweep_after(self) -> None:
        """Sweep for what a dead teacher had decided, once its claims are free; a sweep at work may miss some."""
        while True:
            await self._unswept.wait()
            self._unswept.clear()
            swept = False
            try:
                swept = await self._sweep()
            finally:
                if not swept:
                    self._unswept.set()
            if not swept:
                await asyncio.sleep(LOOK_S)

    async def _adopt(self) -> None:
        """Take up the runs of dead teachers, in a task of its own: Prefect may take minutes, messages cannot wait.

        Also runs whose teacher died while it claimed them, and was alive again before anybody took it for dead.
        """
        settings = self._host.settings
        looked_at = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            if time.monotonic() - looked_at > worker.UNTAGGED_S:
                looked_at = time.monotonic()
                self._unadopted.add(worker.NOBODY)
            for name in sorted(self._unadopted & {*self._silent(), worker.NOBODY}):
                try:
                    await worker.adopt(self._runs, settings.work_pool, settings.queue, name)
                except TryAgain as error:
                    log.warning("prefect: the runs of %s are taken up later: %r", name or "nobody", error)
                    self._unadopted.discard(worker.NOBODY)  # they are retried a minute later
                    break
                self._unadopted.discard(name)
