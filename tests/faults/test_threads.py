"""Threads that hang elsewhere keep no transaction waiting."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from flows.host import Host
from lectern.effects.rows.tables.engine import open_database
from lectern.settings import StreamerSettings
from tests.faults import hosts


@pytest.fixture
def streamer(tmp_path: Path) -> Iterator[Host[StreamerSettings]]:
    engine = open_database(f"sqlite:///{hosts.database('streamer', tmp_path / 'task_list.db')}")
    yield hosts.streamer(engine, tmp_path, max_bytes=1 << 20, max_num=10)
    engine.dispose()


def counted(connection: Connection) -> int:
    return int(connection.execute(text("select count(*) from inbox_list")).scalar_one())


def test_a_resolver_that_hangs_keeps_no_transaction_waiting(streamer: Host[StreamerSettings]) -> None:
    """Names are looked up in threads, as many as there are bookings with odd hosts; the database has its own."""
    goes_on = threading.Event()

    async def asked() -> list[int]:
        hanging = [asyncio.create_task(asyncio.to_thread(goes_on.wait, 30)) for _ in range(64)]
        try:
            await asyncio.sleep(0)
            async with asyncio.timeout(10):
                return [await streamer.look(counted), await streamer.commit(counted)]
        finally:
            goes_on.set()
            await asyncio.gather(*hanging)

    assert asyncio.run(asked()) == [0, 0]
