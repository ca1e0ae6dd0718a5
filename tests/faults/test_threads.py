"""Threads that hang elsewhere keep no transaction waiting."""

import asyncio
import threading

from sqlalchemy import Connection, text

from flows.host import Host
from lectern.settings import StreamerSettings


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
