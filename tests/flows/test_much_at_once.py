"""With much to do at once, a streamer reads its rows, passes on the lease and hands over what begins soon first."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from flows.host import Host
from flows.streamer.handing import Handing
from lectern.effects.rows import airings
from lectern.effects.rows.tables.engine import open_database, transaction
from lectern.effects.rows.tables.streamer import classes, tasks
from lectern.settings import StreamerSettings
from tests.faults import hosts

pytestmark = pytest.mark.asyncio
Streamer = Host[StreamerSettings]
SOON = ("c-1", "c-2", "c-3")


@pytest.fixture
def streamer(tmp_path: Path) -> Iterator[Streamer]:
    """A streamer with three classes that begin one after another; their rows are in another order."""
    root = tmp_path / "videos"
    root.mkdir()
    engine = open_database(f"sqlite:///{hosts.database('streamer', tmp_path / 'task_list.db')}")
    now = time.time()
    with transaction(engine) as connection:
        for number, class_id in reversed(list(enumerate(SOON))):
            times = {"start_time": now + 600 + number, "end_time": now + 1200}
            connection.execute(insert(tasks).values(class_id=class_id, push_url="rtmp://push.example/live/x", **times))
            connection.execute(insert(classes).values(class_id=class_id, video_id="6666", state="ready"))
    yield hosts.streamer(engine, root, 10_000_000, 1000)
    engine.dispose()


class Slow:
    """A playout that answers nothing about a class until it may."""

    def __init__(self, host: Streamer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.may_answer = asyncio.Event()
        monkeypatch.setattr(host.playout, "ask", self._ask)

    async def _ask(self, do: str, **fields: Any) -> dict[str, Any]:
        self.asked.put_nowait((do, str(fields.get("class_id", ""))))
        if do == "air":
            await self.may_answer.wait()
        return {"lease_until": 0.0, "boot_now": 0.0, "classes": [], "release": "2.0.0"}

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """None, and no end."""
        await asyncio.Event().wait()
        yield {}

    async def close(self) -> None:
        """Nothing is held."""

    async def next(self, do: str) -> str:
        """The class of the next request to *do*."""
        while True:
            asked, class_id = await self.asked.get()
            if asked == do:
                return class_id


async def test_rows_are_read_while_many_transactions_wait_to_write(streamer: Streamer) -> None:
    """What begins soon is read from the rows: it must not wait in the line of all that is written down."""
    goes_on = threading.Event()

    def waits(_: Connection) -> None:
        goes_on.wait(60)

    writing = [asyncio.create_task(streamer.commit(waits)) for _ in range(50)]
    try:
        async with asyncio.timeout(20):
            assert (await streamer.look(airings.by_id, [SOON[0]])).keys() == {SOON[0]}
        assert not any(one.done() for one in writing)
    finally:
        goes_on.set()
        await asyncio.gather(*writing)


async def test_classes_are_handed_over_together_those_first_that_begin_first(
    streamer: Streamer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No class waits until the playout has answered for another."""
    slow = Slow(streamer, monkeypatch)
    handing = asyncio.create_task(Handing(streamer)._hand_over())
    try:
        async with asyncio.timeout(20):
            assert [await slow.next("air") for _ in SOON] == list(SOON)
        slow.may_answer.set()
        await handing
    finally:
        handing.cancel()
        await asyncio.wait({handing})
