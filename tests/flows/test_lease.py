"""A streamer's lease is kept by a thread that nothing in the resident's loop can hold up."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from flows.host import StreamerHost
from flows.playout_link import boot_now
from flows.streamer import lease
from flows.streamer.lease import renew
from lectern.db import leases
from lectern.decide import leases as decide
from lectern.playout.lease import LeaseSocket
from lectern.playout.worker_process import Shared
from tests.effects.redis_servers import empty_redis, redis_of_a_module, url_of
from tests.faults import hosts
from tests.playout import flvs
from tests.playout.receiver import Receiver
from tests.playout.stage import Playout
from tests.rows import commit
from tests.waiting import async_wait_until, cancelled

__all__ = ["empty_redis", "redis_of_a_module"]
NAME, KEY = hosts.ALIVE[0], "streamers"
LEASE_S, BEAT_S = 4.0, 0.3


@pytest.fixture
def streamer(client: redis.Redis, streamer: StreamerHost, tmp_path: Path) -> StreamerHost:
    """A streamer with a session that Redis knows, and whose playout has left what is not its own."""
    its = {"redis_url": type(streamer.settings.redis_url)(url_of(client)), "playout_dir": tmp_path / "p"}
    its |= {"lease_s": LEASE_S, "heartbeat_interval_s": BEAT_S}
    streamer.settings = streamer.settings.model_copy(update=its)
    commit(streamer.engine, leases.hold, NAME, "s0", time.time())
    client.hset(f"{KEY}:lease", NAME, "s0")
    streamer.playout.cleared = "s0", os.getpid()
    return streamer


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    """The memory in which a holder keeps the end of the lease; the holder has no other work."""
    (tmp_path / "p").mkdir()
    found = Shared()
    yield found
    os.close(found.file)


@asynccontextmanager
async def kept(streamer: StreamerHost, *, prefect: Callable[[], bool] = lambda: False) -> AsyncIterator[None]:
    """The lease is kept meanwhile; *prefect* says whether the classes are taken."""

    @asynccontextmanager
    async def asked() -> AsyncIterator[Callable[[str, str], Awaitable[bool]]]:
        async def is_taken(_: str, __: str) -> bool:
            return prefect()

        yield is_taken

    keeping = asyncio.create_task(renew(streamer, asked))
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})


def beat(client: redis.Redis) -> dict[str, Any]:
    return dict(json.loads(cast("str", client.hget(KEY, NAME)) or "{}"))


@pytest.mark.live
async def test_a_resident_that_hangs_longer_than_its_lease_cuts_no_class(
    streamer: StreamerHost, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its classes on air go on in their session; meanwhile it takes no new ones, because it could not prepare them."""
    monkeypatch.setattr(lease, "STALE_S", 1.0)
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(60))
    with Receiver() as receiver, Playout(tmp_path / "p", lease_s=0) as playout:
        streamer.playout.cleared = "s0", playout.hello()["holder_pid"]
        async with kept(streamer):
            await asyncio.to_thread(playout.air, "c1", path, receiver.url("c1"), starts_in_s=0.2)
            await async_wait_until(lambda: playout.told("on_air"), description="on air")
            assert beat(client)["full"] is False
            time.sleep(1.5 * LEASE_S)  # noqa: ASYNC251 (the loop hangs: that is what the test is about)
            assert time.time() - beat(client)["at"] < LEASE_S
            assert (beat(client)["stale"], beat(client)["full"]) == (True, True)
            (session,) = receiver.sessions
            assert session.ended is None
            await async_wait_until(lambda: not beat(client)["full"], description="it takes classes again")
        assert not playout.told("lease_over")


@pytest.fixture
async def left_s(shared: Shared, tmp_path: Path) -> AsyncIterator[Callable[[], float]]:
    """How many seconds of the lease are left; its socket is served as the holder does."""
    socket = LeaseSocket(tmp_path / "p", shared)

    async def serve() -> None:
        while True:
            socket.serve()
            await asyncio.sleep(0.01)

    serving = asyncio.create_task(serve())
    yield lambda: shared.lease_until - boot_now()
    await cancelled(serving)
    socket.close()


async def test_a_lease_that_was_taken_is_given_up_at_once(
    streamer: StreamerHost, client: redis.Redis, left_s: Callable[[], float]
) -> None:
    """Although Prefect says that nobody takes the classes, and seconds of it are left."""
    streamer.settings = streamer.settings.model_copy(update={"lease_s": 600})
    async with kept(streamer):
        await async_wait_until(lambda: left_s() > 500, description="it is held")
        client.hset(f"{KEY}:lease", NAME, "-s0")
        await async_wait_until(lambda: left_s() <= 0, description="it is given up")
        await async_wait_until(lambda: client.hget(f"{KEY}:claims", NAME), description="a new one is asked for")
        await asyncio.sleep(1)  # nobody lengthens it
        assert left_s() <= 0
        assert not streamer.playout.held()


async def test_a_redis_that_lost_its_data_takes_no_class_off_the_air(
    streamer: StreamerHost, client: redis.Redis, left_s: Callable[[], float]
) -> None:
    """The lease is lengthened while Prefect says that nobody takes the classes, and granted anew."""
    async with kept(streamer):
        await async_wait_until(lambda: left_s() > 0, description="it is held")
        client.flushall()
        await async_wait_until(lambda: client.hget(f"{KEY}:claims", NAME), description="a new one is asked for")
        began = time.monotonic()
        while time.monotonic() - began < 1.2 * LEASE_S:
            assert left_s() > 0
            await asyncio.sleep(0.1)
        claim = json.loads(cast("str", client.hget(f"{KEY}:claims", NAME)))["session"]
        client.hset(f"{KEY}:lease", NAME, claim)
        await streamer.write_tx(leases.hold, NAME, claim, time.time())
        streamer.granted.set()
        await async_wait_until(lambda: beat(client), description="a heartbeat is confirmed again")
        assert left_s() > 0


async def test_a_lease_that_is_over_comes_back_when_the_playout_has_left_what_is_not_ours(
    streamer: StreamerHost, left_s: Callable[[], float]
) -> None:
    """Else the playout would air what another streamer took meanwhile, until it is told."""
    streamer.playout.cleared = None
    async with kept(streamer):
        await async_wait_until(streamer.playout.held, description="Redis confirms it")
        await asyncio.sleep(1.5)  # nobody grants it
        assert left_s() <= 0
        streamer.playout.cleared = "s0", os.getpid()
        await async_wait_until(lambda: left_s() > 0, description="the holder has it")


async def test_the_lease_of_the_process_before_is_kept_while_redis_is_away(
    streamer: StreamerHost, left_s: Callable[[], float], shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is lengthened as long as nobody takes the classes, and ends with Prefect's word that somebody does."""
    nowhere = type(streamer.settings.redis_url)("redis://127.0.0.1:1/0")
    streamer.settings = streamer.settings.model_copy(update={"redis_url": nowhere})
    until_s, witness_s = 5.0, 7.0
    monkeypatch.setattr(decide, "WITNESS_S", witness_s)
    is_taken = False
    shared.lease_until = boot_now() + until_s
    async with kept(streamer, prefect=lambda: is_taken):
        await async_wait_until(lambda: left_s() > until_s, description="it is lengthened")
        is_taken = True
        await async_wait_until(lambda: left_s() <= 0, description="it ends")
        is_taken = False
        await asyncio.sleep(1.5)  # nobody gives it back
        assert left_s() <= 0, "no witness gives it back"
        assert not streamer.control_connected
