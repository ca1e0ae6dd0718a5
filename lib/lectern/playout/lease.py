"""The lease, which the supervisor keeps itself, and the folder in which it does."""

import fcntl
import json
import math
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from lectern.playout import kernel
from lectern.playout.kernel import StateFile
from lectern.playout.worker_process import Shared


class Misuse(Exception):
    """The playout cannot be started like this; the text says what to do."""


def locked(path: Path) -> int:
    """Hold the lock at *path* while this process lives; raises Misuse if another process holds it.

    Its folder is made if it is not there.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Misuse(f"{error.filename}: cannot be used: {error.strerror}. Name another folder with --dir") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise Misuse(f"{path}: a playout runs in this folder already") from None
    return file


def listening(path: Path, option: str) -> socket.socket:
    """Listen on a socket; the caller holds the lock, so an existing file is a leftover.

    Raises Misuse, which names the *option* that moves the socket elsewhere.
    """
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        why = error.strerror or error
        raise Misuse(f"{path}: the socket cannot be made: {why}. Name another place with {option}") from error
    finally:
        os.umask(before)
    listener.listen(64)
    listener.settimeout(0)
    return listener


MAX_LINE_BYTES = 4096
MAX_CLIENTS = 16
LINES_AT_ONCE = 32
"""Requests of one client that are answered in one turn of the supervisor's loop."""


class LeaseSocket:
    """Serves `lease.sock` in the supervisor's loop, one JSON object a line; whoever is slow or odd is cut off."""

    def __init__(self, folder: Path, shared: Shared) -> None:
        self._shared = shared
        self._path = folder / "lease.sock"
        # Not synced: the lease outlives the supervisor, but not the machine's restart.
        self._file = StateFile("the lease", folder / "lease.json", self._text, is_synced=False)
        shared.lease_until = 0.0  # unless one is on disk, and the machine was not restarted since
        with suppress(OSError, ValueError, TypeError, KeyError):
            lease = json.loads(self._file.path.read_text(encoding="utf-8"))
            if lease["boot"] == kernel.boot_id():
                shared.lease_until = float(lease["until"])
        self._listener = listening(self._path, "--dir")
        self._clients: dict[socket.socket, bytes] = {}  # the beginning of a request, by its client
        self._can_accept = True

    def sockets(self) -> list[socket.socket]:
        """What the loop waits for; it would not wait at all for a client that cannot be accepted."""
        return [self._listener, *self._clients] if self._can_accept else [*self._clients]

    def serve(self) -> None:
        """Answer what has come, without waiting for anybody."""
        self._can_accept = True
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:
            pass  # nobody else has connected
        except OSError:
            self._can_accept = False  # no descriptor is free; the next look tries again
        else:
            client.setblocking(False)  # noqa: FBT003 (it has no name)
            if len(self._clients) >= MAX_CLIENTS:
                oldest = next(iter(self._clients))  # whoever needs the lease connects again
                del self._clients[oldest]
                oldest.close()
            self._clients[client] = b""
        for client in list(self._clients):
            with suppress(BlockingIOError):
                self._serve(client)

    def close(self) -> None:
        """End all connections."""
        for connection in (self._listener, *self._clients):
            connection.close()
        self._path.unlink(missing_ok=True)

    def _text(self) -> str:
        return json.dumps({"until": self._shared.lease_until, "boot": kernel.boot_id()})

    def _serve(self, client: socket.socket) -> None:
        """Answer what *client* has sent; raises BlockingIOError if it has sent nothing."""
        try:
            data = client.recv(MAX_LINE_BYTES)
        except ConnectionError:
            data = b""
        *lines, self._clients[client] = (self._clients[client] + data).split(b"\n")
        try:
            if not data or len(self._clients[client]) > MAX_LINE_BYTES or len(lines) > LINES_AT_ONCE:
                raise ConnectionError("it has gone, or sends too much")
            for line in lines:
                client.sendall(json.dumps(self._answer(line)).encode() + b"\n")
        except (OSError, ValueError, OverflowError, RecursionError):  # also if it does not read its answers
            del self._clients[client]
            client.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        """Take the `until` of a request, and tell the lease; raises ValueError, RecursionError if it is no JSON."""
        request = json.loads(line)
        until = request.get("until") if isinstance(request, dict) else "none"
        if until is not None:
            if isinstance(until, bool) or not isinstance(until, (int, float)) or not math.isfinite(until):
                return {"ok": False, "why": "until: a number of seconds of CLOCK_BOOTTIME is needed"}
            if until != self._shared.lease_until:
                self._shared.lease_until = float(until)
                self._file.write()
        problem = self._file.problem
        answer = {"ok": True, "lease_until": self._shared.lease_until, "boot_now": kernel.boot_now()}
        answer |= {"holder_pid": os.getpid(), "durable": problem is None}
        return answer | ({"why": problem} if problem else {})
