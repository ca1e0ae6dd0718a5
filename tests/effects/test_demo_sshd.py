"""The demo's SSH server, as a client sees it."""

import asyncio
import os
import signal
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncssh
import paramiko  # type: ignore[import-untyped]  # it ships no types
import pytest
import pytest_asyncio

from tests.effects.conftest import alive
from town.ports import HOST
from town.sshd import SshServer


async def wait_until(condition: Callable[[], object], *, timeout_s: float, description: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {description}"
        await asyncio.sleep(0.02)


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[SshServer]:
    async with SshServer(tmp_path / "ssh", environment={"OF_THE_HOST": "its own"}) as running:
        yield running


def connect(server: SshServer, key: Path | None = None) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.load_host_keys(str(server.known_hosts))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    pkey = paramiko.Ed25519Key.from_private_key_file(str(key or server.client_key))
    client.connect(HOST, server.port, server.user, pkey=pkey, allow_agent=False, look_for_keys=False, timeout=5)
    return client


def run(client: paramiko.SSHClient, command: str, given: bytes = b"") -> tuple[int, bytes, bytes]:
    stdin, stdout, stderr = client.exec_command(command, timeout=10)
    stdin.write(given)
    stdin.channel.shutdown_write()
    output, errors = stdout.read(), stderr.read()  # first: a status comes when all output has found room
    return stdout.channel.recv_exit_status(), output, errors


@pytest.mark.asyncio
async def test_commands(server: SshServer, tmp_path: Path) -> None:
    """A command's output, errors, input and exit status come through, also many commands at once."""
    assert server.url == f"ssh://{server.user}@127.0.0.1:{server.port}"

    def story() -> None:
        with connect(server) as client:
            assert run(client, "echo out; echo err >&2; exit 3") == (3, b"out\n", b"err\n")
            assert run(client, "cat", given=b"x" * 300_000) == (0, b"x" * 300_000, b"")
            assert run(client, 'kill -9 $$; echo "$OF_THE_HOST"')[0] == 137
            assert run(client, 'echo "$OF_THE_HOST"') == (0, b"its own\n", b"")
            big = run(client, "head -c 3000000 /dev/zero; head -c 100000 /dev/zero >&2")
            assert (big[0], len(big[1]), len(big[2])) == (0, 3_000_000, 100_000)
            # Each waits for all the others: one after another, the first would never end.
            together = (
                f"cd {tmp_path}; touch here-{{0}}; until [ $(ls here-* | wc -l) = 8 ]; do sleep 0.1; done; echo {{0}}"
            )
            running = [client.exec_command(together.format(number), timeout=60)[1] for number in range(8)]
            assert [output.read() for output in running] == [f"{number}\n".encode() for number in range(8)]

    await asyncio.to_thread(story)


@pytest.mark.asyncio
async def test_only_keys_that_are_admitted_get_in(server: SshServer, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(stranger)
    with pytest.raises(paramiko.AuthenticationException):
        await asyncio.to_thread(connect, server, key=stranger)
    async with SshServer(tmp_path / "other", admits=[stranger]) as other:
        for key in (stranger, other.client_key):
            with await asyncio.to_thread(connect, other, key=key) as client:
                assert (await asyncio.to_thread(run, client, "echo in"))[1] == b"in\n"
    for secret in (server.client_key, server.folder / "host_key"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


@pytest.mark.asyncio
@pytest.mark.parametrize("who", ["the server stops", "the client goes"])
async def test_a_command_ends_with_its_channel_children_included(server: SshServer, who: str) -> None:
    """A server that stopped has closed its port; the same keys are good after the next start."""
    client = await asyncio.to_thread(connect, server)
    _, stdout, _ = await asyncio.to_thread(client.exec_command, "sleep 60 & echo $!; wait")
    child = int(await asyncio.to_thread(stdout.readline))
    assert alive(child)
    if who == "the server stops":
        await server.stop()
        with pytest.raises(paramiko.ssh_exception.NoValidConnectionsError):
            await asyncio.to_thread(connect, server)
    client.close()
    await wait_until(lambda: not alive(child), timeout_s=3, description="the end of the child")
    if who == "the server stops":
        await server.start()
    with await asyncio.to_thread(connect, server) as again:
        assert await asyncio.to_thread(run, again, "echo again") == (0, b"again\n", b"")


@pytest.mark.asyncio
async def test_a_program_that_left_its_command_holds_nothing_up(server: SshServer) -> None:
    """It goes on when the server stops, as the jobs of an ECS host do."""
    with await asyncio.to_thread(connect, server) as client:
        _, stdout, _ = await asyncio.to_thread(client.exec_command, "setsid sh -c 'echo $$; exec sleep 60' & cat")
        child = int(await asyncio.to_thread(stdout.readline))
        try:
            await asyncio.wait_for(server.stop(), 10)
            assert alive(child)
        finally:
            os.kill(child, signal.SIGKILL)
