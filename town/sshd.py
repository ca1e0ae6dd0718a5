"""An SSH server on loopback: lets the holder of a key in, and runs commands as the present user."""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import PIPE
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import asyncssh

from town.ports import HOST, Loopback

_PIPE_BYTES = 65_536

Session = asyncssh.SSHServerProcess[bytes]


class SshServer(Loopback):
    """Lets the holder of *client_key*, and of other keys in *admits*, run commands; *environment* is added to ours.

    Keys are made in *folder* once, and kept: a server that starts again is known to its clients.
    """

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        admits: Sequence[Path] = (),
    ) -> None:
        super().__init__(port)
        self.folder = folder.resolve()
        self.client_key = self.folder / "client_key"
        self.known_hosts = self.folder / "known_hosts"
        self._environment = {**os.environ, **(environment or {})}
        self._admits = admits
        self._listener: asyncssh.SSHAcceptor | None = None
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._commands: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The server as the setting ECS_HOSTS names it; whatever user is named, commands run as the present one."""
        return f"ssh://town@{HOST}:{self.port}"

    async def start(self) -> None:
        """Listen; raises OSError if the port is taken."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        host_key = _key(self.folder / "host_key")
        self.known_hosts.write_text(f"[{HOST}]:{self.port} {host_key.export_public_key().decode()}")
        keys = [_key(path) for path in (self.client_key, *self._admits)]
        authorized = asyncssh.import_authorized_keys("".join(key.export_public_key().decode() for key in keys))
        self._listener = await asyncssh.listen(
            HOST,
            self.port,
            server_factory=lambda: _Door(self._connections),
            server_host_keys=[host_key],
            authorized_client_keys=authorized,
            process_factory=self._begin,
            encoding=None,
            allow_pty=False,
            agent_forwarding=False,
        )

    async def stop(self) -> None:
        """Close the port and all connections, and kill all commands."""
        if self._listener is None:
            return
        self._listener.close()
        for connection in list(self._connections):
            connection.abort()
        await self._listener.wait_closed()
        self._listener = None
        if self._commands:
            await asyncio.wait(self._commands)

    def _begin(self, session: Session) -> None:
        task = asyncio.ensure_future(self._command(session))
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)

    async def _command(self, session: Session) -> None:
        """Run the command of a client in a process group of its own, which ends with the channel."""
        argv = ("/bin/sh", "-c", session.command or "")
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=self._environment, start_new_session=True
        )
        feeding = asyncio.ensure_future(_fed(process, session))
        ended = asyncio.ensure_future(_told(process, session))
        gone = asyncio.ensure_future(session.wait_closed())
        await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            _close_pipes(process)
        code = await process.wait()
        for pump in (feeding, ended):
            pump.cancel()
        await asyncio.wait({feeding, ended})
        session.exit(code if code >= 0 else 128 - code)
        await gone


class _Door(asyncssh.SSHServer):
    """Keeps the *connections* that are open."""

    def __init__(self, connections: set[asyncssh.SSHServerConnection]) -> None:
        self._connections = connections

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Keep it."""
        self._own = conn
        self._connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._connections.discard(self._own)


class _Reads(Protocol):
    async def read(self, n: int = -1) -> bytes: ...


class _Writes(Protocol):
    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...


async def _fed(process: asyncio.subprocess.Process, session: Session) -> None:
    """Pass on what the client says."""
    assert process.stdin is not None
    await _pump(session.stdin, process.stdin)
    process.stdin.close()


async def _told(process: asyncio.subprocess.Process, session: Session) -> None:
    """Pass on what the process says, until nobody can say more."""
    assert process.stdout is not None
    assert process.stderr is not None
    await asyncio.gather(_pump(process.stdout, session.stdout), _pump(process.stderr, session.stderr))


def _close_pipes(process: asyncio.subprocess.Process) -> None:
    """Close our ends of the pipes: a program that left the group may hold the others, and *process* would not end."""
    transport: asyncio.SubprocessTransport = process._transport  # type: ignore[attr-defined]  # it has no public name
    for number in range(3):
        pipe = transport.get_pipe_transport(number)
        assert pipe is not None
        pipe.close()


async def _pump(source: _Reads, sink: _Writes) -> None:
    """Pass on what comes, until it ends or nobody reads it any more."""
    with contextlib.suppress(OSError, asyncssh.Error):
        while data := await source.read(_PIPE_BYTES):
            sink.write(data)
            await sink.drain()


def _key(path: Path) -> asyncssh.SSHKey:
    if not path.exists():
        path.touch(mode=0o600)
        # Not RSA: each time such a key is read its primes are tested again, which takes longer than a login.
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(path)
    return asyncssh.read_private_key(path)
