"""What comes over the bus is kept in the inbox, also beside a key of Redis that cannot be read."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from sqlalchemy import select

from flows.resident.intake import Intake
from lectern.effects.redis.bus import Bus
from lectern.effects.rows.tables.engine import open_database, reading
from lectern.effects.rows.tables.teacher import journal
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
