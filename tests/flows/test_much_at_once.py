"""With much to do at once, a streamer reads its rows, passes on the lease and hands over what begins soon first."""

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from flows.host import StreamerHost
from flows.streamer.playout_sync import PlayoutSync
from lectern.db import airings
from lectern.db.engine import transaction
from lectern.model.tables.streamer import classes, tasks
from lectern.playout.control_socket import PROTOCOL

SOON = ("c-1", "c-2", "c-3")


@pytest.fixture
def streamer(streamer: StreamerHost) -> StreamerHost:
    """A streamer with three classes that begin one after another; their rows are in another order."""
    now = time.time()
    with transaction(streamer.engine) as connection:
        for number, class_id in reversed(list(enumerate(SOON))):
            times = {"start_time": now + 600 + number, "end_time": now + 1200}
            connection.execute(insert(tasks).values(class_id=class_id, push_url="rtmp://push.example/live/x", **times))
            connection.execute(insert(classes).values(class_id=class_id, video_id="6666", state="ready"))
    return streamer


async def test_rows_are_read_while_many_transactions_wait_to_write(streamer: StreamerHost) -> None:
    """What begins soon is read from the rows: it must not wait in the line of all that is written down."""
    goes_on = threading.Event()

    def waits(_: Connection) -> None:
        goes_on.wait(60)

    writing = [asyncio.create_task(streamer.write_tx(waits)) for _ in range(50)]
    try:
        async with asyncio.timeout(20):
            assert (await streamer.read_tx(airings.by_id, [SOON[0]])).keys() == {SOON[0]}
        assert not any(one.done() for one in writing)
    finally:
        goes_on.set()
        await asyncio.gather(*writing)


async def test_classes_are_handed_over_together_those_first_that_begin_first(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "timetable.jsonl"

    async def ask(_do: str, **fields: Any) -> dict[str, Any]:
        answer = {"holder_pid": 1, "classes": [], "release": "2.0.0", "protocol": PROTOCOL}
        taken: dict[str, Any] = {"version": fields.get("version"), "refused": {}, "left_out": 0}
        return {**answer, **taken, "timetable": {"path": str(path), "version": None}}

    monkeypatch.setattr(streamer.playout, "ask", ask)
    monkeypatch.setattr(streamer.playout, "client", object())
    await PlayoutSync(streamer)._bring_up_to_date()
    assert [json.loads(line)["class_id"] for line in path.read_text().splitlines()[1:]] == list(SOON)
    assert list(streamer.playout.confirmed) == list(SOON)
