"""The demo's SSH server, both kinds of it, as a client sees them."""

import asyncio
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import paramiko  # type: ignore[import-untyped]  # it ships no types
import pytest
import pytest_asyncio

from lectern.demo.ports import HOST
from lectern.demo.sshd import SshServer


async def wait_until(condition: Callable[[], object], *, timeout_s: float, description: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {description}"
        await asyncio.sleep(0.02)


@pytest_asyncio.fixture(params=["sshd", "paramiko"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SshServer]:
    async with SshServer(tmp_path / "ssh", force_python=request.param == "paramiko") as running:
        if running.kind != request.param:
            pytest.skip("this machine has no sshd that lets us in: only paramiko's is checked")
        yield running


def connect(server: SshServer, known_hosts: Path | None = None, key: Path | None = None) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.load_host_keys(str(known_hosts or server.known_hosts))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.connect(
        HOST,
        server.port,
        server.user,
        pkey=paramiko.ECDSAKey.from_private_key_file(str(key or server.client_key)),
        allow_agent=False,
        look_for_keys=False,
        timeout=5,
    )
    return client


def run(client: paramiko.SSHClient, command: str, given: bytes = b"") -> tuple[int, bytes, bytes]:
    stdin, stdout, stderr = client.exec_command(command, timeout=10)
    stdin.write(given)
    stdin.channel.shutdown_write()
    output, errors = stdout.read(), stderr.read()  # first: a status comes when all output has found room
    return stdout.channel.recv_exit_status(), output, errors


def is_alive(pid: int) -> bool:
    """A process that ended, but was not yet collected by its parent, is not alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.asyncio
async def test_commands(server: SshServer, tmp_path: Path) -> None:
    """A command's output, errors, input and exit status come through, also many commands at once."""
    assert server.url == f"ssh://{server.user}@127.0.0.1:{server.port}"

    def story() -> None:
        with connect(server) as client:
            assert run(client, "echo out; echo err >&2; exit 3") == (3, b"out\n", b"err\n")
            assert run(client, "cat", given=b"x" * 300_000) == (0, b"x" * 300_000, b"")
            assert run(client, "true") == (0, b"", b"")
            assert run(client, "echo 'a b'  \"$((1 + 1))\"")[1] == b"a b 2\n"
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
async def test_a_long_command_and_keepalives(server: SshServer) -> None:
    """Output of a running command comes while it runs; keepalive requests are answered meanwhile."""

    def story() -> None:
        with connect(server) as client:
            transport = client.get_transport()
            assert transport is not None
            stdin, stdout, _ = client.exec_command("echo 1; read line; echo $line", timeout=30)
            assert stdout.readline() == "1\n"
            transport.global_request("keepalive@openssh.com", wait=True)
            stdin.write("2\n")
            stdin.flush()
            assert stdout.read() == b"2\n"

    await asyncio.wait_for(asyncio.to_thread(story), 60)


@pytest.mark.asyncio
async def test_strangers(server: SshServer, tmp_path: Path) -> None:
    """A client that does not know the host key stays away; a key that the server does not know is refused."""
    nothing, stranger = tmp_path / "empty", tmp_path / "stranger"
    nothing.touch()
    paramiko.ECDSAKey.generate().write_private_key_file(str(stranger))
    with pytest.raises(paramiko.SSHException, match="not found in known_hosts"):
        await asyncio.to_thread(connect, server, known_hosts=nothing)
    with pytest.raises(paramiko.AuthenticationException):
        await asyncio.to_thread(connect, server, key=stranger)
    for secret in (server.client_key, server.folder / "host_key"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


@pytest.mark.asyncio
async def test_stop_ends_everything(server: SshServer) -> None:
    """After stop() the port is closed and no command is left; the same keys are good after the next start."""
    client = await asyncio.to_thread(connect, server)
    _, stdout, _ = await asyncio.to_thread(client.exec_command, "echo $$; sleep 60 & wait")
    pid = int(await asyncio.to_thread(stdout.readline))
    await server.stop()
    await wait_until(lambda: not is_alive(pid), timeout_s=3, description="the end of the command")
    with pytest.raises(paramiko.ssh_exception.NoValidConnectionsError):
        await asyncio.to_thread(connect, server)
    client.close()
    await server.start()
    with await asyncio.to_thread(connect, server) as again:
        assert await asyncio.to_thread(run, again, "echo again") == (0, b"again\n", b"")


@pytest.mark.asyncio
async def test_the_group_ends_with_its_channel(tmp_path: Path) -> None:
    """When a client goes, the Python server kills its commands, children included."""
    async with SshServer(tmp_path, force_python=True) as server:
        client = await asyncio.to_thread(connect, server)
        _, stdout, _ = await asyncio.to_thread(client.exec_command, "sleep 60 & echo $!; wait")
        child = int(await asyncio.to_thread(stdout.readline))
        assert is_alive(child)
        client.close()
        await wait_until(lambda: not is_alive(child), timeout_s=3, description="the end of the child")
