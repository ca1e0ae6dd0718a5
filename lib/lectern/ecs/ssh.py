"""Runs programs on another host by SSH: the host's key is verified, and no program outlives its time there."""

import asyncio
import re
import select
import shlex
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import paramiko  # type: ignore[import-untyped]
from paramiko.hostkeys import HostKeyEntry  # type: ignore[import-untyped]

from lectern import subprocesses
from lectern.errors import CallAPerson, Caught, Misuse, TryAgain
from lectern.i18n import Text, msgid

_NEEDED = "{ command -v setsid && command -v timeout; } >/dev/null"  # by what runs there, detached or not
_BEGIN = f'{_NEEDED} && echo lectern-begins && LC_ALL=C exec timeout -k 5 "$@"'
_MARK = b"lectern-begins\n"  # what a login shell prints before it is no output of the program
_CHUNK_BYTES = 65536
_WAIT_S = 0.25
_GRACE_S = 3  # seconds that a program has there beyond its time: whoever waits for it gives it up before
_URL = re.compile(
    r"ssh://(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@"
    r"(?P<name>[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?/?"
)


@dataclass(frozen=True)
class SshHost:
    """Where to log in."""

    user: str
    name: str
    port: int = 22

    @classmethod
    def parse(cls, text: str) -> "SshHost":
        """Read ``ssh://user@host:port``; raises Misuse with what to type."""
        matched = _URL.fullmatch(text.strip())
        if matched is None or not 0 < int(matched["port"] or 22) < 65536:
            raise Misuse("{text!r}: is no SSH host; write ssh://user@host:port", text=text)
        return cls(matched["user"], matched["name"].strip("[]"), int(matched["port"] or 22))

    def keyscan(self, known_hosts_path: Path) -> str:
        """The command that adds the host's key to *known_hosts_path*."""
        return f"ssh-keyscan -p {self.port} {self.name} >> {shlex.quote(str(known_hosts_path))}"

    def __str__(self) -> str:
        return f"ssh://{self.user}@{f'[{self.name}]' if ':' in self.name else self.name}:{self.port}"


T = TypeVar("T")
_KEEPALIVE_S = 15
_SILENCE_S = 45  # after which a peer that acknowledges nothing is gone
_THREADS = 8
_UNANSWERED = frozenset({"Authentication timeout.", "Authentication failed: transport shut down or saw EOF"})
"""What paramiko says, by the class of a refusal, of a host that has not answered whether it takes our key."""


def on_host(program: str, host: object) -> Text:
    """A *program* on another host, as errors name it."""
    return Text("{program} on {host}", program=program, host=host)


class Lost(TryAgain):
    """The host cannot be reached, or the connection to it broke; what was begun there may go on."""


class _UnknownKey(Exception):
    pass


class _Verify(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    def missing_host_key(self, client: object, hostname: str, key: object) -> None:
        raise _UnknownKey


class SshConnection:
    """A login on a host; made by ``connect``. Several programs can run at once."""

    def __init__(self, host: SshHost, client: paramiko.SSHClient, threads: ThreadPoolExecutor) -> None:
        self.host = host
        self._client = client
        self._threads = threads

    async def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        stall_s: float | None = None,
        on_line: subprocesses.OnLine | None = None,
        stdin: bytes = b"",
    ) -> subprocesses.Finished:
        """Run a program there as ``subprocesses.run`` does here, each argument quoted; returncode -1 means a signal.

        After a timeout, a stall or a cancellation nobody listens to it any more; ``timeout`` ends it there, with its
        process group, when *timeout_s* is over. Raises subprocesses.TimedOut, subprocesses.Stalled, Lost, CallAPerson
        (the host lacks coreutils).
        """
        began_at, program = time.monotonic(), on_host(argv[0], self.host)
        out, err = subprocesses.ProgramOutput(on_line), subprocesses.ProgramOutput()
        head: bytes | None = b""  # None when the program has begun
        command = shlex.join(["sh", "-c", _BEGIN, "lectern", f"{timeout_s + _GRACE_S:.0f}", *argv])
        channel = await self._threaded(partial(self._begun, command, stdin, timeout_s))
        try:
            while True:
                new_out, new_err, ended = await self._threaded(partial(_read, channel))
                if head is not None:
                    head, mark, new_out = (head[-_CHUNK_BYTES:] + new_out).partition(_MARK)
                    head = None if mark else head
                out.add(new_out)
                err.add(new_err)
                if ended:
                    break
                took_s, silent_s = time.monotonic() - began_at, time.monotonic() - out.progressed_at
                if took_s >= timeout_s:
                    raise subprocesses.TimedOut(program, took_s, subprocesses.last_line(err.text))
                if stall_s is not None and silent_s >= stall_s:
                    raise subprocesses.Stalled(program, silent_s, subprocesses.last_line(err.text))
            out.end()
            returncode = self._returncode(channel, argv[0])
            if head is not None:
                raise self._not_begun(argv[0], returncode, subprocesses.last_line(err.text))
            return subprocesses.Finished(returncode, out.text, err.text)
        finally:
            with suppress(OSError, EOFError, paramiko.SSHException):  # a broken connection has closed it
                channel.close()

    def _begun(self, command: str, stdin: bytes, timeout_s: float) -> paramiko.Channel:
        transport = self._client.get_transport()
        if transport is None:
            raise Lost("{host}: the connection is closed", host=self.host)
        channel = transport.open_session(timeout=min(timeout_s, _SILENCE_S))
        channel.settimeout(min(timeout_s, _SILENCE_S))
        channel.exec_command(command)
        with suppress(OSError):  # it has ended without reading all: the exit code is read next
            channel.sendall(stdin)
            channel.shutdown_write()
        return channel

    def _returncode(self, channel: paramiko.Channel, program: str) -> int:
        returncode: int = channel.recv_exit_status()
        transport = self._client.get_transport()
        if returncode == -1 and (transport is None or not transport.is_active()):
            raise Lost("{host}: the connection was lost while {program} ran", host=self.host, program=program)
        return returncode

    def _not_begun(self, program: str, returncode: int, last_words: str) -> CallAPerson:
        reason = last_words or Text("no word")
        needs = Text("the host needs setsid and timeout: apt-get install util-linux coreutils")
        text = msgid("{host}: {program} could not be started ({returncode}): {reason}; {needs}")
        return CallAPerson(text, host=self.host, program=program, returncode=returncode, reason=reason, needs=needs)

    async def _threaded(self, work: Callable[[], T]) -> T:
        """Run *work* in a thread, and return its result; raises Lost, and hangs up, if the host is silent."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            async with asyncio.timeout(_SILENCE_S):
                return await future
        except TimeoutError as error:
            self._client.close()
            raise Lost("{host}: no answer for {silence_s} s, hung up", host=self.host, silence_s=_SILENCE_S) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise Lost(
                "{host}: the connection is lost: {error}", host=self.host, error=error or type(error).__name__
            ) from error


def _read(channel: paramiko.Channel) -> tuple[bytes, bytes, bool]:
    """Wait for at most 0.25 s; returns the new output, the new errors, and whether the program has ended."""
    if not (channel.recv_ready() or channel.recv_stderr_ready()):
        if channel.eof_received or channel.closed:
            channel.status_event.wait(_WAIT_S)
        else:
            poll = select.poll()
            poll.register(channel.fileno(), select.POLLIN)
            poll.poll(_WAIT_S * 1000)
    # Look for the end first: all that was printed before the end can then be read.
    ended = channel.status_event.is_set() and (channel.eof_received or channel.closed)
    out = channel.recv(_CHUNK_BYTES) if channel.recv_ready() else b""
    err = channel.recv_stderr(_CHUNK_BYTES) if channel.recv_stderr_ready() else b""
    return out, err, ended and not out and not err


@asynccontextmanager
async def connect(
    host: SshHost, key_path: Path, known_hosts_path: Path, *, timeout_s: float
) -> AsyncIterator[SshConnection]:
    """Log in on *host* with the key at *key_path* only, if *known_hosts_path* has the host's own key.

    Raises Lost (network), CallAPerson (the host's key is unknown or differs, or it refuses ours), Misuse (a
    file is missing).
    """
    threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix=f"ssh {host.name}")
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(_Verify())
    logging_in = threads.submit(_log_in, client, host, key_path, known_hosts_path, timeout_s)
    try:
        await asyncio.wrap_future(logging_in)
        yield SshConnection(host, client, threads)
    finally:
        # If we are cancelled, the login goes on in its thread; it is closed afterwards, and leaves no connection.
        threads.submit(lambda: (wait([logging_in]), client.close()))
        threads.shutdown(wait=False)


def _log_in(
    client: paramiko.SSHClient, host: SshHost, key_path: Path, known_hosts_path: Path, timeout_s: float
) -> None:
    if not key_path.is_file():
        text = msgid("{key_path}: there is no such SSH key for {host}; type: ssh-keygen -t ed25519 -f {key_path}")
        raise Misuse(text, key_path=key_path, host=host)
    if not known_hosts_path.is_file():
        text = msgid("{known_hosts_path}: there is no such file; type: {keyscan}")
        raise Misuse(text, known_hosts_path=known_hosts_path, keyscan=host.keyscan(known_hosts_path))
    look = Text("look who it is, then: {keyscan}; see RUNBOOK.md", keyscan=host.keyscan(known_hosts_path))
    try:
        _know(client.get_host_keys(), known_hosts_path)
        key = _own_key(key_path)
        wire = socket.create_connection((host.name, host.port), timeout=timeout_s)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # otherwise a host that vanished is waited for a quarter of an hour
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE_S * 1000)
        client.connect(
            host.name,
            host.port,
            host.user,
            pkey=key,
            sock=wire,
            allow_agent=False,
            look_for_keys=False,
            banner_timeout=timeout_s,
            auth_timeout=timeout_s,
        )
        client.get_transport().set_keepalive(_KEEPALIVE_S)
    except _UnknownKey as error:
        text = msgid("{host}: its key is not in {known_hosts_path}; {look}")
        raise CallAPerson(text, host=host, known_hosts_path=known_hosts_path, look=look) from error
    except paramiko.BadHostKeyException as error:
        text = msgid("{host}: its key is another than in {known_hosts_path} ({error}); {look}")
        raise CallAPerson(text, host=host, known_hosts_path=known_hosts_path, error=error, look=look) from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        if isinstance(error, paramiko.AuthenticationException) and str(error) not in _UNANSWERED:
            add = f"ssh-copy-id -i {shlex.quote(str(key_path))} -p {host.port} {host.user}@{host.name}"
            text = msgid("{host}: does not take {key_path} ({error}); type: {add}; see RUNBOOK.md")
            raise CallAPerson(text, host=host, key_path=key_path, error=error, add=add) from error
        why = getattr(error, "strerror", None) or error or type(error).__name__
        raise Lost("{host}: cannot be reached: {reason}", host=host, reason=why) from error


def _own_key(path: Path) -> paramiko.PKey:
    """The SSH key in a file; paramiko itself would hide a host's refusal behind its attempts to read other kinds."""
    try:
        return paramiko.PKey.from_path(path)
    except (paramiko.SSHException, paramiko.UnknownKeyType, OSError, TypeError, ValueError) as error:
        make = Text(
            "make one that has no passphrase: ssh-keygen -t ed25519 -N '' -f {path}", path=shlex.quote(str(path))
        )
        text = msgid("{path}: cannot be read as an SSH key ({error}); {make}")
        raise Misuse(text, path=path, error=error or type(error).__name__, make=make) from error


def _know(hosts: paramiko.HostKeys, path: Path) -> None:
    """Add the keys in *path* to *hosts*; raises Misuse if the file cannot be read.

    A line that cannot be read is passed over: its host counts as unknown, which says what to type. Paramiko by itself
    would know no host at all.
    """
    try:
        lines = path.read_bytes().decode(errors="replace").split("\n")
    except OSError as error:
        text = msgid("{path}: cannot be read ({why}); let the user of the teacher read it")
        raise Misuse(Text(text, path=path, why=error.strerror)) from error
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        with Caught():  # whatever is odd about a line, it is that host's alone
            entry = HostKeyEntry.from_line(line, number)
            for name in entry.hostnames if entry is not None else ():
                hosts.add(name, entry.key.get_name(), entry.key)
