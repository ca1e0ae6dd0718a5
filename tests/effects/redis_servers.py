"""A Redis of a test's own, on loopback, that forgets everything at its end."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import redis

from flows.host import TeacherHost
from lectern.redis.client import Bus
from tests import laid
from tests.faults import hosts
from tests.waiting import wait_until
from town import programs
from town.ports import free_port


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[redis.Redis]:
    """A client of a server that was just started. The first of *options* may be its file of settings."""
    port = free_port()
    argv = [programs.redis_server(), *options, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    with (folder / "redis.log").open("wb") as log:
        server = subprocess.Popen([*argv, "--save", "", "--appendonly", "no"], stdout=log, stderr=log)
        try:
            with redis.Redis(port=port, socket_timeout=30) as client:
                wait_until(lambda: _answers(client) or server.poll() is not None, description="Redis answers")
                assert server.poll() is None, (folder / "redis.log").read_text()
                yield client
        finally:
            server.terminate()
            server.wait(10)


@contextmanager
def paused(client: redis.Redis) -> Iterator[None]:
    """A server whose process stands still."""
    pid = int(client.info("server")["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def port_of(client: redis.Redis) -> int:
    return int(client.connection_pool.connection_kwargs["port"])


def url_of(client: redis.Redis) -> str:
    """How another process reaches the same database."""
    return f"redis://127.0.0.1:{port_of(client)}/{client.connection_pool.connection_kwargs.get('db', 0)}"


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Bus]:
    """A bus of the product."""
    bus = Bus.open(url)
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def host_at(client: redis.Redis, folder: Path) -> AsyncIterator[TeacherHost]:
    """A teacher that has a database in *folder*, and this Redis."""
    engine = laid.opened("teacher", folder / "teacher.db")
    host = hosts.teacher(engine)
    host.bus = Bus.open(url_of(client))
    try:
        yield host
    finally:
        await host.bus.close()  # a test may have given it another one
        engine.dispose()


@pytest.fixture(name="bus")
async def bus_of_a_test(client: redis.Redis) -> AsyncIterator[Bus]:
    async with opened(url_of(client)) as made:
        yield made


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


@pytest.fixture(scope="module", name="server")
def redis_of_a_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """A Redis for all tests of a module."""
    with redis_server(tmp_path_factory.mktemp("redis")) as client:
        yield client


@pytest.fixture(name="client")
def empty_redis(server: redis.Redis) -> redis.Redis:
    """That Redis, with nothing in it."""
    server.flushall()
    return server
