"""Where Redis is: what a URL may name, and that the sentinels' word is followed when the master dies."""

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from flows.outbox_publisher import ANSWERS_S
from lectern.errors import Misuse, TryAgain
from lectern.redis import connection, rename
from lectern.redis.client import Bus
from tests.effects.redis_servers import opened, redis_server, url_of
from tests.waiting import wait_until
from town import programs
from town.ports import free_port


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:6379", "REDIS_URL is no Redis URL"),
        ("redis+cluster://127.0.0.1:7000", "names a Redis Cluster"),
        ("redis+sentinel://127.0.0.1:26379", "names no service"),
        ("redis+sentinel://127.0.0.1:26379/mymaster/x", "names no service"),
        ("redis+sentinel://127.0.0.1:port/mymaster", "has no address"),
        ("redis+sentinel://127.0.0.1:26379/mymaster?socket_timeout=soon", "Invalid value for 'socket_timeout'"),
    ],
)
async def test_a_url_that_names_no_redis_of_ours_is_refused_in_words(url: str, said: str) -> None:
    with pytest.raises(Misuse, match=said):
        Bus.open(url)


@pytest.mark.parametrize(
    ("url", "typed"),
    [
        ("redis://10.0.0.1/3", "redis-cli -h 10.0.0.1 -p 6379 ping"),
        ("redis://:a%40b@10.0.0.1:6380", "REDISCLI_AUTH=… redis-cli -h 10.0.0.1 -p 6380 ping"),
        ("rediss://me:secret@[fd00::1]:6380/0", "REDISCLI_AUTH=… redis-cli -h fd00::1 -p 6380 --tls --user me ping"),
        ("unix:///run/redis.sock", "redis-cli -s /run/redis.sock ping"),
        ("redis+sentinel://:secret@one:26380,two/mymaster/0", "redis-cli -h one -p 26380 ping"),
        ("redis://host:port", "redis-cli -u REDIS_URL ping"),
    ],
)
async def test_what_a_person_types_to_reach_it_has_its_place_and_no_password(url: str, typed: str) -> None:
    assert connection.command(url, "ping") == typed


async def test_a_server_of_a_cluster_is_refused_in_words(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--cluster-enabled", "yes") as client:
        async with opened(url_of(client)) as bus:
            with pytest.raises(Misuse, match="one server, or the sentinels"):
                await bus.refuse_cluster()


async def test_a_server_by_itself_is_none_of_a_cluster(bus: Bus) -> None:
    await bus.refuse_cluster()


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[tuple[int, redis.Redis, redis.Redis]]:
    """The port of a sentinel, and a master with its replica."""
    folders = [tmp_path / name for name in ("master", "replica")]
    for folder in folders:
        folder.mkdir()
    with redis_server(folders[0]) as master:
        of_master = str(master.connection_pool.connection_kwargs["port"])
        with redis_server(folders[1], "--replicaof", "127.0.0.1", of_master) as replica:
            port = free_port()
            config = tmp_path / "sentinel.conf"
            lines = [
                f"port {port}",
                "bind 127.0.0.1",
                f"dir {tmp_path}",
                f"sentinel monitor mymaster 127.0.0.1 {of_master} 1",
                "sentinel down-after-milliseconds mymaster 60000",  # a busy machine takes no master for dead
                "sentinel failover-timeout mymaster 3000",
            ]
            config.write_text("\n".join(lines) + "\n")
            with (tmp_path / "sentinel.log").open("wb") as log:
                argv = [programs.redis_server(), str(config), "--sentinel"]
                running = subprocess.Popen(argv, stdout=log, stderr=log)
            try:
                with redis.Redis(port=port, socket_timeout=5, decode_responses=True) as asked:
                    wait_until(lambda: _knows_replica(asked), description="the sentinel knows the replica")
                yield port, master, replica
            finally:
                running.terminate()
                running.wait(10)


def _knows_replica(asked: redis.Redis) -> bool:
    try:
        found = asked.sentinel_slaves("mymaster")
    except redis.RedisError:
        return False
    return any(one["is_slave"] and not one["is_disconnected"] for one in found)


async def test_when_the_master_dies_its_replica_is_spoken_to(sentinel: tuple[int, redis.Redis, redis.Redis]) -> None:
    port, master, replica = sentinel
    bus = Bus.open(f"redis+sentinel://127.0.0.1:{port}/mymaster/0", timeout_s=2)
    await bus.add("order", "before")
    assert master.xlen("order") == 1
    with redis.Redis(port=port) as asked:
        asked.sentinel_set("mymaster", "down-after-milliseconds", 500)
    master.shutdown(nosave=True)
    for _ in range(100):
        try:
            await bus.add("order", "after")
            break
        except TryAgain:
            await asyncio.sleep(0.2)
    await bus.close()
    entries: list[tuple[bytes, dict[bytes, bytes]]] = replica.xrange("order")  # type: ignore[assignment]
    assert [fields[b"body"] for _, fields in entries][-1] == b"after"


async def test_a_sentinel_without_answers_is_not_waited_for(sentinel: tuple[int, redis.Redis, redis.Redis]) -> None:
    """It died with the host of the master: the next one is asked while a teacher still waits to send its answers."""
    port, _, _ = sentinel
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with opened(f"redis+sentinel://127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{port}/mymaster") as bus:
            async with asyncio.timeout(ANSWERS_S):
                assert await bus.now() > 0


async def test_what_a_url_of_sentinels_says_of_tls_holds_for_them_and_for_the_master() -> None:
    async with opened(
        "rediss+sentinel://user:pw@a,b/mymaster/2?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=false&sentinel_password=s"
    ) as bus:
        pool: Any = bus._client.connection_pool
        (first, *_) = pool.sentinel_manager.sentinels
        for given in (pool.connection_kwargs, first.connection_pool.connection_kwargs):
            assert (given["ssl_ca_certs"], given["ssl_check_hostname"]) == ("/etc/ca.pem", False)
        assert issubclass(pool.connection_class, redis.asyncio.SSLConnection)
        assert first.connection_pool.connection_kwargs["password"] == "s"
        assert (pool.connection_kwargs["password"], pool.connection_kwargs["db"]) == ("pw", 2)


async def test_keys_are_renamed_on_server_that_sentinels_name(sentinel: tuple[int, redis.Redis, redis.Redis]) -> None:
    port, master, _ = sentinel
    master.set("waiting:1", "x")
    with rename.opened(f"redis+sentinel://127.0.0.1:{port}/mymaster/0") as client:
        assert rename.renamed(client, [rename.Rule.parse("waiting:{record_id}", "{record_id}_list")]).renamed == 1
    assert master.get("1_list") == b"x"
