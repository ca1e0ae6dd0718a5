"""One process per queue: a lock in Redis and, on a streamer, a folder lock that no pause or network failure loses."""

import asyncio
import fcntl
import os
import socket
import time
from pathlib import Path
from typing import Any

import psutil

from flows.failures import FatalError
from flows.host import Host, log
from flows.resident import notifications
from lectern.errors import CallAPerson, TryAgain
from lectern.i18n import Text, labelled
from lectern.redis.client import Bus
from lectern.redis.connection import asking
from lectern.settings import Settings, StreamerSettings
from lectern.timing import backoff_s, comes

TTL_S = 15.0
RENEW_S = 4.0
START_WAIT_S = 60.0
ANSWERS_S = 3.0
"""Seconds that Redis has to answer: at the start, classes on air wait for the lease of a streamer that begins again."""

AWAY_S = 10.0  # seconds without Redis after which an alarm is raised


class QueueLock:
    """The right to serve a host's queue."""

    def __init__(self, settings: Settings) -> None:
        self._name = settings.name
        self._key = f"lectern:queue:{settings.name}"
        self._owner = owner(os.getpid())
        self._root = settings.video_root if isinstance(settings, StreamerSettings) else None
        self._folder: int | None = None

    async def take(self, bus: Bus, stop: asyncio.Event) -> bool:
        """Wait for the lock; False if *stop* is set meanwhile. Raises CallAPerson if it is not free within a minute.

        While Redis is away, the folder's lock is enough for a streamer: `keep` takes the other one later.
        """
        until = time.monotonic() + START_WAIT_S
        tries = 0
        while True:  # not left to `Supervisor`: nothing works before this, and a stop ends its pause
            why = await self._try(bus)
            if why is None:
                return True
            if time.monotonic() > until:
                raise CallAPerson(labelled(self._name, why))
            tries += 1
            log.warning("%s: %s; waiting", self._name, why)
            if await comes(stop, backoff_s(tries)):
                return False

    async def _try(self, bus: Bus) -> str | None:
        """Try to take the lock; returns None if it is ours now, else the reason why it is not."""
        try:
            if self._root is not None and not self._take_folder(self._root):
                return Text("another process serves {name}: it has {root}", name=self._name, root=self._root)
        except OSError as error:
            return Text("{root}: {why}; see VIDEO_ROOT", root=self._root, why=error.strerror)
        try:
            async with asking(ANSWERS_S):
                holder = await self._renewed(bus)
        except TryAgain as error:
            if self._folder is None:
                return error.message
            log.warning("%s: begins without its lock in Redis: %s", self._name, error.message)
            return None
        if holder is None:
            return None
        return Text("another process serves {name}: {holder}", name=self._name, holder=holder)

    async def _renewed(self, bus: Bus) -> str | None:
        """Take or renew the lock in Redis; returns who else has it, None if it is ours."""
        holder = await bus.hold(self._key, self._owner, TTL_S)
        if holder is not None and _dead(holder):
            await bus.let_go(self._key, holder)
            holder = await bus.hold(self._key, self._owner, TTL_S)
        return holder

    def _take_folder(self, root: Path) -> bool:
        """Lock *root*; False if another process has it: even a suspended one keeps its pushes, until it is dead."""
        if self._folder is not None:
            return True
        root.mkdir(parents=True, exist_ok=True)
        folder = os.open(root, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(folder)
            return False
        self._folder = folder
        return True

    async def keep(self, host: Host[Any]) -> None:
        """Renew the lock until cancelled, and raise an alarm while Redis does not let it.

        Raises FatalError if another process has it.
        """
        well_at = time.monotonic()
        while True:  # not left to `Supervisor`: only a long absence of Redis is an alarm
            host.watchdog.beat("lock")
            await asyncio.sleep(RENEW_S)
            try:
                async with asking(ANSWERS_S):
                    holder = await self._renewed(host.bus)
            except TryAgain as error:
                host.redis_away, away_s = True, time.monotonic() - well_at
                log.warning("redis: the queue's lock is not renewed: %s", error)
                if away_s >= AWAY_S:
                    await notifications.redis_away(host, away_s, error)
                continue
            host.redis_away, well_at = False, time.monotonic()
            host.alarmed_at.forget("redis")
            if holder is not None:
                raise FatalError(Text("another process serves {name} now; this one ends", name=self._name))

    async def let_go(self, bus: Bus) -> None:
        """Release the lock in Redis."""
        await bus.let_go(self._key, self._owner)


def owner(pid: int) -> str:
    """The process *pid* of this machine as an owner: machine, pid, and its begin since 1970 and since the boot."""
    began = psutil.Process(pid).create_time()
    return f"{socket.gethostname()}:{pid}:{began:.2f}:{began - psutil.boot_time():.2f}"


def _dead(holder: str) -> bool:
    """Whether *holder*, an owner of the lock, was a process of this machine that is no more."""
    machine, *known = holder.split(":")
    if machine != socket.gethostname() or len(known) != 3:
        return False
    try:
        pid, since_boot = int(known[0]), float(known[2])  # the other time moves whenever the clock is set
        began = psutil.Process(pid).create_time() - psutil.boot_time()
    except psutil.NoSuchProcess:
        return True
    except ValueError:  # nobody of ours has written it
        return False
    return bool(abs(began - since_boot) > 1)
