"""The bus over TLS: encrypted, by a server that proves its name, or not at all."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from lectern.errors import TryAgain
from tests.effects.certificates import issued
from tests.effects.redis_servers import opened
from tests.waiting import wait_until
from town import programs
from town.ports import HOST, free_port

# The Redis that comes with the Python packages speaks no TLS: only a machine with everything can look at it.
pytestmark = pytest.mark.live
NAME = "localhost"


def has_tls(program: str, folder: Path) -> bool:
    """Whether this redis-server was built with TLS; without a key it ends at once, and says what it lacks."""
    argv = [program, "--port", "0", "--tls-port", "1", "--bind", HOST, "--dir", str(folder)]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return not any(words in said.stdout + said.stderr for words in ("finding TLS support", "Bad directive"))


class Encrypted:
    """A Redis that speaks TLS alone, and by whom its certificate is issued."""

    def __init__(self, folder: Path, name: str) -> None:
        self.port = free_port()
        self.authority, server = issued(folder, name)
        argv = [programs.redis_server(), "--port", "0", "--tls-port", str(self.port), "--bind", HOST, "--save", ""]
        argv += ["--tls-cert-file", str(server), "--tls-key-file", str(server), "--tls-auth-clients", "no"]
        argv += ["--tls-ca-cert-file", str(self.authority), "--requirepass", "made-up", "--dir", str(folder)]
        with (folder / "redis.log").open("wb") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)
        wait_until(lambda: self._answers() or self.process.poll() is not None, description="Redis answers")
        assert self.process.poll() is None, (folder / "redis.log").read_text()

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self.port, password="made-up", ssl=True, ssl_cert_reqs="none") as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def url(self, *options: str) -> str:
        return f"rediss://:made-up@{NAME}:{self.port}/0?{'&'.join(options)}"


@pytest.fixture
def encrypted(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Encrypted]:
    if not has_tls(programs.redis_server(), tmp_path):
        pytest.skip(f"{programs.redis_server()} was built without TLS: apt install redis-server")
    found = Encrypted(tmp_path, getattr(request, "param", NAME))
    yield found
    found.process.terminate()
    found.process.wait(10)


async def test_what_is_sent_over_tls_is_heard_over_tls(encrypted: Encrypted) -> None:
    async with opened(encrypted.url(f"ssl_ca_certs={encrypted.authority}")) as bus:
        async with bus.subscribed(["order"]) as messages, asyncio.timeout(20):
            while await bus._client.publish("order", "one") == 0:
                await anext(messages)
            while (found := await anext(messages)) is None:
                pass
        assert found == ("order", "one")
        assert await bus.hold("lectern:queue:a", "me", 5)


async def test_a_server_whose_authority_is_unknown_is_told_nothing(encrypted: Encrypted) -> None:
    await _is_refused(encrypted.url())


@pytest.mark.parametrize("encrypted", ["another.example"], indirect=True)
async def test_a_server_that_has_another_name_is_told_nothing(encrypted: Encrypted) -> None:
    await _is_refused(encrypted.url(f"ssl_ca_certs={encrypted.authority}"))


async def _is_refused(url: str) -> None:
    async with opened(url) as bus:
        with pytest.raises(TryAgain, match=r"(?i)certificate"):
            await bus.hold("lectern:queue:a", "me", 5)
