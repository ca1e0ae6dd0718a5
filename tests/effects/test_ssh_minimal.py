"""Programs on another host whose SSH server only does ``exec``."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import IO

import paramiko  # type: ignore[import-untyped]
import pytest

from lectern.effects import process
from tests.effects.conftest import FAMILY, Sshd, alive, login
from tests.waiting import wait_until

pytestmark = pytest.mark.live


class _Minimal(paramiko.ServerInterface):  # type: ignore[misc]
    def check_auth_publickey(self, username: str, key: object) -> int:
        return int(paramiko.AUTH_SUCCESSFUL)

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(paramiko.OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._serve, args=(channel, command), daemon=True).start()
        return True

    def _serve(self, channel: paramiko.Channel, command: bytes) -> None:
        pipe = subprocess.PIPE
        with subprocess.Popen(command, shell=True, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            threading.Thread(target=self._feed, args=(channel, child.stdin), daemon=True).start()
            while data := child.stdout.read1(4096):  # type: ignore[attr-defined]
                channel.sendall(data)
        channel.send_exit_status(child.returncode)
        channel.close()

    def _feed(self, channel: paramiko.Channel, stdin: IO[bytes]) -> None:
        with suppress(BrokenPipeError), stdin:
            while data := channel.recv(4096):
                stdin.write(data)
                stdin.flush()


@pytest.fixture
def minimal(sshd: Sshd) -> Iterator[Sshd]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transports: list[paramiko.Transport] = []

        def serve() -> None:
            wire, _ = listener.accept()
            transport = paramiko.Transport(wire)
            transports.append(transport)
            transport.add_server_key(paramiko.Ed25519Key.from_private_key_file(str(sshd.folder / "host")))
            transport.start_server(server=_Minimal())

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        known = sshd.folder / "known_minimal"
        known.write_text(f"[127.0.0.1]:{port} {(sshd.folder / 'host.pub').read_text()}")
        yield Sshd(f"ssh://media@127.0.0.1:{port}", port, sshd.key, known, sshd.folder)
        thread.join(10)
        for transport in transports:
            transport.close()


async def test_a_server_that_only_does_exec_is_enough(minimal: Sshd) -> None:
    """Its own processes are not in the group that is ended."""
    lines: list[str] = []
    async with login(minimal) as connection:
        assert (await connection.run(["echo", "it's"], timeout_s=10)).output == "it's\n"
        with pytest.raises(process.TimedOut):
            await connection.run(["sh", "-c", FAMILY], timeout_s=0.6, on_line=lines.append)
        pids = [int(pid) for pid in lines[0].split()]
        wait_until(lambda: not any(alive(pid) for pid in pids), description="the family is gone")
        assert (await connection.run(["echo", "still"], timeout_s=10)).output == "still\n"
