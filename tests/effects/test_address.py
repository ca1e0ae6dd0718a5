"""Where Redis is: what a URL may name, and that the sentinels' word is followed when the master dies."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from lectern.effects.redis import rekey
from lectern.effects.redis.bus import Bus
from lectern.errors import Misuse
from tests.effects.redis_servers import redis_server, url_of
from tests.stage.waiting import wait_until
from town import programs
from town.ports import free_port

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:6379", "REDIS_URL is no Redis URL"),
        ("redis+cluster://127.0.0.1:7000", "names a Redis Cluster"),
        ("redis+sentinel://127.0.0.1:26379", "names no service"),
        ("redis+sentinel://127.0.0.1:26379/mymaster/x", "names no service"),
        ("redis+sentinel://127.0.0.1:port/mymaster", "has no address"),
    ],
)
async def test_a_url_that_names_no_redis_of_ours_is_refused_in_words(url: str, said: str) -> None:
    with pytest.raises(Misuse, match=said):
        Bus.open(url)


async def test_a_server_of_a_cluster_is_refused_in_words(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--cluster-enabled", "yes") as client:
        bus = Bus.open(url_of(client))
        with pytest.raises(Misuse, match="one server, or the sentinels"):
            await bus.refuse_cluster()
        await bus.close()


async def test_a_server_by_itself_is_none_of_a_cluster(client: redis.Redis) -> None:
    bus = Bus.open(url_of(client))
    await bus.refuse_cluster()
    await bus.close()


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
                "sentinel down-after-milliseconds mymaster 500",
                "sentinel failover-timeout mymaster 3000",
            ]
            config.write_text("\n".join(lines) + "\n")
            with (tmp_path / "sentinel.log").open("wb") as log:
                argv = [programs.redis_server(), str(config), "--sentinel"]
                running = subprocess.Popen(argv, stdout=log, stderr=log)
            try:
                with redis.Redis(port=port, socket_timeout=5, decode_responses=True) as asked:
                    wait_until(
                        lambda: _knows_replica(asked), description="the sentinel knows the replica", timeout_s=30
                    )
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
    master.shutdown(nosave=True)
    for _ in range(100):
        try:
            await bus.add("order", "after")
            break
        except (redis.RedisError, OSError):
            await asyncio.sleep(0.2)
    await bus.close()
    entries: list[tuple[bytes, dict[bytes, bytes]]] = replica.xrange("order")  # type: ignore[assignment]
    assert [fields[b"body"] for _, fields in entries][-1] == b"after"


async def test_keys_are_renamed_on_the_server_that_the_sentinels_name(
    sentinel: tuple[int, redis.Redis, redis.Redis],
) -> None:
    port, master, _ = sentinel
    master.set("waiting:1", "x")
    with rekey.opened(f"redis+sentinel://127.0.0.1:{port}/mymaster/0") as client:
        assert rekey.renamed(client, [rekey.Rule.parse("waiting:{record_id}", "{record_id}_list")]).renamed == 1
    assert master.get("1_list") == b"x"
