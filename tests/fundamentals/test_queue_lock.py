"""A streamer begins without Redis: the lock of its folder is enough, and classes on air wait for its lease."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from redis.exceptions import ConnectionError as Lost

from flows.resident import instance_lock
from flows.resident.instance_lock import QueueLock
from lectern.errors import CallAPerson
from lectern.redis.client import Bus
from lectern.settings import StreamerSettings, TeacherSettings


class Away:
    """A Redis that is away, or hangs."""

    def __init__(self, *, hangs: bool) -> None:
        self.hangs = hangs

    async def holder(self, _lock: str) -> str | None:
        if self.hangs:
            await asyncio.Event().wait()
        raise Lost("no route to host")


@pytest.mark.parametrize("hangs", [False, True])
def test_a_streamer_whose_folder_is_its_own_begins_while_redis_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, hangs: bool
) -> None:
    """Its playout goes on for the seconds of its lease; nobody but this process asks whether it may go on."""
    monkeypatch.setattr(instance_lock, "ANSWERS_S", 0.05)
    settings = StreamerSettings(streamer_name="streamer1", video_root=tmp_path)

    async def takes() -> tuple[bool, bool]:
        bus, stop = cast("Bus", Away(hangs=hangs)), asyncio.Event()
        first, second = QueueLock(settings), QueueLock(settings)
        async with asyncio.timeout(10):
            has = await first.take(bus, stop)
            stop.set()
            return has, await second.take(bus, stop)

    assert asyncio.run(takes()) == (True, False), "the folder has one owner"


def test_a_teacher_waits_for_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else says whether another process takes its messages."""
    monkeypatch.setattr(instance_lock, "START_WAIT_S", -1.0)
    settings: Any = TeacherSettings.to_look()
    with pytest.raises(Exception, match="Redis: no route to host"):
        asyncio.run(QueueLock(settings).take(cast("Bus", Away(hangs=False)), asyncio.Event()))


class Locks:
    """A Redis that keeps locks."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}

    async def holder(self, lock: str) -> str | None:
        return self.held.get(lock)

    async def hold(self, lock: str, owner: str, _ttl_s: float) -> bool:
        return self.held.setdefault(lock, owner) == owner

    async def let_go(self, lock: str, owner: str) -> None:
        if self.held.get(lock) == owner:
            del self.held[lock]


def test_a_process_that_lives_keeps_its_lock_although_the_clock_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux tells when a process began by the clock as it is now: set by an hour, each of them began an hour ago."""
    monkeypatch.setattr(instance_lock, "START_WAIT_S", -1.0)
    bus, settings = cast("Bus", Locks()), cast("Any", TeacherSettings.to_look())

    async def takes(lock: QueueLock) -> bool:
        return await lock.take(bus, asyncio.Event())

    first = QueueLock(settings)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        first._owner = instance_lock.owner(child.pid)
        assert asyncio.run(takes(first))
        booted = psutil._pslinux.boot_time
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: booted() + 3600)
        with pytest.raises(CallAPerson, match="another process serves teacher"):
            asyncio.run(takes(QueueLock(settings)))
    finally:
        child.communicate(b"\n")
    assert asyncio.run(takes(QueueLock(settings))), "it has ended"
