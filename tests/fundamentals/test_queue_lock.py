"""A streamer begins without Redis: the lock of its folder is enough, and classes on air wait for its lease."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as Lost

from flows.resident import queue_lock
from flows.resident.queue_lock import QueueLock
from lectern.effects.redis.bus import Bus
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
    monkeypatch.setattr(queue_lock, "ANSWERS_S", 0.05)
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
    monkeypatch.setattr(queue_lock, "START_WAIT_S", -1.0)
    settings: Any = TeacherSettings.to_look()
    with pytest.raises(Exception, match="Redis does not answer: no route to host"):
        asyncio.run(QueueLock(settings).take(cast("Bus", Away(hangs=False)), asyncio.Event()))
