"""An SSH server on loopback: OpenSSH's where there is one that lets us in, else one made of paramiko."""

import argparse
import asyncio
import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import paramiko  # type: ignore[import-untyped]  # it ships no types

from lectern.demo.ports import HOST, Loopback
from lectern.errors import LecternError

_START_S = 10.0
_STOP_S = 5.0
_PIPE_BYTES = 65_536

_CONFIG = """\
ListenAddress {host}:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/sshd.pid
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PrintMotd no
MaxStartups 200
MaxSessions 200
"""


class SshServer(Loopback):
    """Lets the holder of *client_key* run commands as the present user.

    Keys are made in *folder* once, and kept: a server that starts again is known to its clients.
    """

    def __init__(self, folder: Path, port: int | None = None, *, force_python: bool = False) -> None:
        super().__init__(port)
        self.folder = folder.resolve()
        self.user = getpass.getuser()
        self.client_key = self.folder / "client_key"
        self.known_hosts = self.folder / "known_hosts"
        self.kind = "paramiko"
        self._force_python = force_python
        self._sshd: subprocess.Popen[bytes] | None = None
        self._listener: _Listener | None = None

    @property
    def url(self) -> str:
        """The server as the setting ECS_HOSTS names it."""
        return f"ssh://{self.user}@{HOST}:{self.port}"

    async def start(self) -> None:
        """Listen; raises LecternError or OSError where that fails."""
        await asyncio.to_thread(self._start)

    async def stop(self) -> None:
        """End the server, and with it the commands that its clients run."""
        await asyncio.to_thread(self._stop)

    def _start(self) -> None:
        host_key = self._make_keys()
        sshd = _find_sshd()
        if sshd is not None and not self._force_python:
            self._start_sshd(sshd)
            if self._admits():
                self.kind = "sshd"
                return
            # sshd is strict about accounts (one without a password can count as locked), and says so only here.
            self._stop()
        self.kind = "paramiko"
        client_key = paramiko.ECDSAKey.from_private_key_file(str(self.client_key))
        self._listener = _Listener(self.port, host_key, self.user, client_key)
        if not self._admits():
            self._stop()
            raise LecternError(f"{self.url}: the SSH server does not admit its own key")

    def _make_keys(self) -> paramiko.ECDSAKey:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for key in (self.folder / "host_key", self.client_key):
            if not key.exists():
                # Not RSA: each time such a key is read its primes are tested again, which takes longer than a login.
                paramiko.ECDSAKey.generate().write_private_key_file(str(key))  # 0600
        client = paramiko.ECDSAKey.from_private_key_file(str(self.client_key))
        (self.folder / "authorized_keys").write_text(f"{client.get_name()} {client.get_base64()}\n")
        host = paramiko.ECDSAKey.from_private_key_file(str(self.folder / "host_key"))
        self.known_hosts.write_text(f"[{HOST}]:{self.port} {host.get_name()} {host.get_base64()}\n")
        return host

    def _start_sshd(self, sshd: str) -> None:
        config = self.folder / "sshd_config"
        config.write_text(_CONFIG.format(host=HOST, port=self.port, folder=self.folder))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # without it, sshd run by root refuses to start
        with (self.folder / "sshd.log").open("ab") as log:
            self._sshd = subprocess.Popen([sshd, "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL, stderr=log)

    def _admits(self) -> bool:
        """Whether a client gets in, tried until the server is up."""
        # Loaded here: given only the file, paramiko hides a refusal behind its attempts to read other kinds of keys.
        key = paramiko.ECDSAKey.from_private_key_file(str(self.client_key))
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and (self._sshd is None or self._sshd.poll() is None):
            with paramiko.SSHClient() as client:
                client.load_host_keys(str(self.known_hosts))
                try:
                    client.connect(
                        HOST,
                        self.port,
                        self.user,
                        pkey=key,
                        allow_agent=False,
                        look_for_keys=False,
                    )
                except paramiko.AuthenticationException:
                    return False
                except (OSError, paramiko.SSHException):
                    time.sleep(0.05)
                else:
                    return True
        return False

    def _stop(self) -> None:
        if self._sshd is not None:
            # sshd gives each client a process outside its own group, which would outlive it.
            family = _descendants(self._sshd.pid)
            self._sshd.terminate()
            for pid in family:
                _kill(os.kill, pid)
            try:
                self._sshd.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._sshd.kill()
                self._sshd.wait()
            self._sshd = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None


def _find_sshd() -> str | None:
    return shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


def _descendants(ancestor: int) -> list[int]:
    """The processes below *ancestor*, as far as /proc tells."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):  # a process that ends meanwhile
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    family = [ancestor]
    for member in family:  # grows while it is walked
        family += [pid for pid, parent in parents.items() if parent == member]
    return family[1:]


def _kill(how: Callable[[int, int], None], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        how(number, signal.SIGKILL)


class _Listener:
    """The server made of paramiko: one thread listens, each client and each command has its own."""

    def __init__(self, port: int, host_key: paramiko.PKey, user: str, client_key: paramiko.PKey) -> None:
        self._socket = socket.create_server((HOST, port), backlog=128)
        self._host_key = host_key
        self._admission = (user, client_key)
        self._transports: list[paramiko.Transport] = []
        self._commands: list[_Command] = []
        self._thread = threading.Thread(target=self._accept, name="sshd", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the port and all connections, and kill all commands."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._socket.close()
        self._thread.join(_STOP_S)
        for transport in self._transports:
            transport.close()
        for command in self._commands:
            command.join(_STOP_S)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self._transports = [transport for transport in self._transports if transport.is_active()]
            self._commands = [command for command in self._commands if command.is_alive()]
            transport = paramiko.Transport(client)
            transport.add_server_key(self._host_key)
            with contextlib.suppress(paramiko.SSHException, EOFError):
                # With an event, the negotiation runs in the transport's thread: a slow client delays nobody.
                transport.start_server(threading.Event(), _Policy(*self._admission, self._commands.append))
            self._transports.append(transport)


class _Policy(paramiko.ServerInterface):  # type: ignore[misc]  # untyped, as paramiko is
    """Who may do what: one user, with one key, may run commands."""

    def __init__(self, user: str, key: paramiko.PKey, keep: "Callable[[_Command], None]") -> None:
        self._user, self._key, self._keep = user, key, keep

    def get_allowed_auths(self, username: str) -> str:
        """Keys only."""
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        """Whether the key is the one; that the client holds it is then proved by paramiko."""
        known = username == self._user and key == self._key
        return int(paramiko.AUTH_SUCCESSFUL if known else paramiko.AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        """Sessions, and nothing else."""
        session = kind == "session"
        return int(paramiko.OPEN_SUCCEEDED if session else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        """Run *command*; paramiko tells the client that it is accepted once this has returned."""
        running = _Command(channel, command)
        self._keep(running)
        running.start()
        return True


class _Command(threading.Thread):
    """A command that a client runs: in a process group of its own, which ends with the channel."""

    def __init__(self, channel: paramiko.Channel, command: bytes) -> None:
        super().__init__(name="ssh command", daemon=True)
        self._channel, self._command = channel, command

    def run(self) -> None:
        """Run the command, pass on what it reads and writes, and tell how it ended."""
        time.sleep(0.01)  # lets paramiko's acceptance go out first: a quick command would close the channel before it
        pipe: Any = subprocess.PIPE
        process = subprocess.Popen(
            [b"/bin/sh", b"-c", self._command], stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        outputs = [
            threading.Thread(target=_pump, args=(process.stdout, self._channel.sendall), daemon=True),
            threading.Thread(target=_pump, args=(process.stderr, self._channel.sendall_stderr), daemon=True),
        ]
        for thread in (*outputs, threading.Thread(target=self._feed, args=(process.stdin,), daemon=True)):
            thread.start()
        while process.poll() is None or any(output.is_alive() for output in outputs):
            if self._channel.closed:
                _kill(os.killpg, process.pid)
                break
            time.sleep(0.02)
        code = process.wait()
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.send_exit_status(code if code >= 0 else 128 - code)
        self._channel.close()

    def _feed(self, stdin: IO[bytes]) -> None:
        with contextlib.suppress(OSError), stdin:
            while data := self._channel.recv(_PIPE_BYTES):
                stdin.write(data)
                stdin.flush()


def _pump(source: IO[bytes], send: Callable[[bytes], None]) -> None:
    with contextlib.suppress(OSError), source:
        while data := os.read(source.fileno(), _PIPE_BYTES):
            send(data)


def main() -> None:
    """Serve SSH until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m lectern.demo.sshd", description=main.__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="for keys, known_hosts and the log")
    parser.add_argument("--port", type=int, help="a port of 127.0.0.1 (a free one by default)")
    parser.add_argument("--force-python", action="store_true", help="paramiko's server, even where there is sshd")
    given = parser.parse_args()
    SshServer(given.folder, given.port, force_python=given.force_python).run()


if __name__ == "__main__":
    main()
