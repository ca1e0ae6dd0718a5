"""Where Redis is: what a URL may name, that the sentinels' word is followed, and that TLS proves who it is."""

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
from tests.effects.certificates import issued
from tests.effects.redis_servers import opened, port_of, redis_server, url_of
from tests.waiting import wait_until
from town import programs
from town.ports import HOST, free_port


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
        ("redis://10.0.0.1/3", "redis-cli -u redis://10.0.0.1/3 ping"),
        ("rediss://[fd00::1]:6380/0", "redis-cli -u 'rediss://[fd00::1]:6380/0' ping"),
        ("redis://:a%40b@10.0.0.1:6380", "redis-cli -u REDIS_URL ping"),
        ("redis://10.0.0.1/0?password=secret", "redis-cli -u REDIS_URL ping"),
        ("unix:///run/redis.sock", "redis-cli -u REDIS_URL ping"),
        ("redis+sentinel://one:26380,two/mymaster/0", "redis-cli -u REDIS_URL ping"),
    ],
)
async def test_what_a_person_types_to_reach_it_has_its_place_and_no_password(url: str, typed: str) -> None:
    assert connection.command(url, "ping") == typed


async def test_a_server_of_a_cluster_is_refused_in_words_and_one_by_itself_is_not(tmp_path: Path, bus: Bus) -> None:
    await bus.refuse_cluster()
    between = str(free_port())  # else its own port and 10,000, which may be another's
    with redis_server(tmp_path, "--cluster-enabled", "yes", "--cluster-port", between) as client:
        async with opened(url_of(client)) as of_cluster:
            with pytest.raises(Misuse, match="one server, or the sentinels"):
                await of_cluster.refuse_cluster()


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[tuple[int, redis.Redis, redis.Redis]]:
    """The port of a sentinel, and a master with its replica."""
    folders = [tmp_path / name for name in ("master", "replica", "sentinel")]
    for folder in folders:
        folder.mkdir()
    with redis_server(folders[0]) as master:
        of_master = str(port_of(master))
        lines = [
            f"sentinel monitor mymaster 127.0.0.1 {of_master} 1\n",
            "sentinel down-after-milliseconds mymaster 60000\n",  # a busy machine takes no master for dead
            "sentinel failover-timeout mymaster 3000\n",
        ]
        config = folders[2] / "sentinel.conf"
        config.write_text("".join(lines))
        with (
            redis_server(folders[1], "--replicaof", "127.0.0.1", of_master) as replica,
            redis_server(folders[2], str(config), "--sentinel") as asked,
        ):
            wait_until(lambda: _knows_replica(asked), description="the sentinel knows the replica")
            yield port_of(asked), master, replica


def _knows_replica(asked: redis.Redis) -> bool:
    return any(one["is_slave"] and not one["is_disconnected"] for one in asked.sentinel_slaves("mymaster"))


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
    """It died with the host of the master: the next one is asked while a teacher still waits to send its answers.

    Keys are renamed on the server that sentinels name, too.
    """
    port, master, _ = sentinel
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis+sentinel://127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{port}/mymaster"
        async with opened(url) as bus, asyncio.timeout(ANSWERS_S):
            assert await bus.now() > 0
        master.set("waiting:1", "x")
        with rename.opened(url) as client:
            assert rename.renamed(client, [rename.Rule.parse("waiting:{record_id}", "{record_id}_list")]).renamed == 1
    assert master.get("1_list") == b"x"


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


# The Redis that comes with the Python packages speaks no TLS: only a machine with everything can look at it.


NAME = "localhost"


def has_tls(program: str, folder: Path) -> bool:
    """Whether this redis-server was built with TLS; without a key it ends at once, and says what it lacks."""
    argv = [program, "--port", "0", "--tls-port", "1", "--bind", HOST, "--dir", str(folder)]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return not any(words in said.stdout + said.stderr for words in ("finding TLS support", "Bad directive"))


@pytest.fixture
def encrypted(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The URL of a Redis that speaks TLS, and what trusts the authority by which its certificate is issued."""
    if not has_tls(programs.redis_server(), tmp_path):
        pytest.skip(f"{programs.redis_server()} was built without TLS: apt install redis-server")
    authority, server = issued(tmp_path, getattr(request, "param", NAME))
    tls = {
        "port": free_port(),
        "cert-file": server,
        "key-file": server,
        "ca-cert-file": authority,
        "auth-clients": "no",
    }
    with redis_server(tmp_path, *(word for name, its in tls.items() for word in (f"--tls-{name}", str(its)))):
        yield f"rediss://{NAME}:{tls['port']}/0", f"?ssl_ca_certs={authority}"


@pytest.mark.live
async def test_what_is_sent_over_tls_is_heard_over_tls(encrypted: tuple[str, str]) -> None:
    async with opened("".join(encrypted)) as bus:
        async with bus.hearing.subscribed(["order"]) as messages, asyncio.timeout(20):
            while await bus._client.publish("order", "one") == 0:
                await anext(messages)
            while (found := await anext(messages)) is None:
                pass
        assert found == ("order", "one")
        assert await bus.hold("lectern:queue:a", "me", 5) is None


@pytest.mark.live
@pytest.mark.parametrize(("encrypted", "trusts"), [(NAME, False), ("another.example", True)], indirect=["encrypted"])
async def test_a_server_of_an_unknown_authority_or_of_another_name_is_told_nothing(
    encrypted: tuple[str, str], trusts: bool
) -> None:
    url, trusted = encrypted
    async with opened(url + trusted if trusts else url) as bus:
        with pytest.raises(TryAgain, match=r"(?i)certificate"):
            await bus.hold("lectern:queue:a", "me", 5)
