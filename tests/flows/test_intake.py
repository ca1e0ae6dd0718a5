"""What comes over the bus is kept in the inbox, also beside a key of Redis that cannot be read."""

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis
from sqlalchemy import select

from flows.resident.intake import Intake
from lectern.effects.redis.bus import Bus
from lectern.effects.rows.inbox import Arrived
from lectern.effects.rows.tables.engine import open_database, reading
from lectern.effects.rows.tables.teacher import journal
from lectern.runs.handled import Handled
from tests.effects.redis_servers import empty_redis, redis_of_a_module, url_of
from tests.faults import hosts

__all__ = ["empty_redis", "redis_of_a_module"]
pytestmark = pytest.mark.asyncio


async def test_a_key_of_a_wrong_type_keeps_no_other_stream_from_being_read(client: redis.Redis, tmp_path: Path) -> None:
    client.set("order", "the old program's")
    client.xadd("streamer_report", {"body": '{"cmd": "prepared"}'})
    engine = open_database(f"sqlite:///{hosts.database('teacher', tmp_path / 'teacher.db')}")
    host = hosts.teacher(engine)
    host.bus = Bus.open(url_of(client))
    intake = Intake(host, cast("Any", None), [], ["order", "streamer_report"])
    work = asyncio.create_task(intake._read_streams())
    found: list[str] = []
    alarms: list[bytes] = []
    for _ in range(100):
        await asyncio.sleep(0.1)
        assert not work.done(), work
        with reading(engine) as connection:
            found = list(connection.execute(select(journal.inbox.c.source)).scalars())
        entries: list[tuple[bytes, dict[bytes, bytes]]] = client.xrange("alarm")  # type: ignore[assignment]
        alarms = [fields[b"body"] for _, fields in entries]
        if found and alarms:
            break
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    await host.bus.close()
    engine.dispose()
    assert found == ["stream:streamer_report"]
    assert len(alarms) == 1
    assert b'"code":505' in alarms[0]
    assert b"order" in alarms[0]


async def test_a_message_whose_lease_ended_while_it_waited_is_in_its_batch_once(tmp_path: Path) -> None:
    """Twice in one batch, a booking would be answered twice."""
    engine = open_database(f"sqlite:///{hosts.database('teacher', tmp_path / 'teacher.db')}")
    host = hosts.teacher(engine)
    host.settings = host.settings.model_copy(update={"inbox_lease_s": 0.0})
    batches: asyncio.Queue[list[int]] = asyncio.Queue()

    async def handle(batch: Handled) -> None:
        batches.put_nowait(batch.ids)
        await asyncio.Event().wait()

    intake = Intake(host, cast("Any", SimpleNamespace(handle=handle)), [], [])
    intake._left.clear()
    await intake._commit([Arrived("channel:order", "order", '{"cmd": "order", "class_id": "c-1"}')])
    intake._left.add("booking")  # others came meanwhile
    work = asyncio.create_task(intake._dispatch("booking"))
    async with asyncio.timeout(20):
        assert await batches.get() == [1]
    work.cancel()
    await asyncio.wait({work})
    engine.dispose()
