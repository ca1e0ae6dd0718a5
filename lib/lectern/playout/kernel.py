"""What the operating system does: clocks, connections, processes, and small files that are replaced as a whole."""

import array
import ctypes
import fcntl
import math
import os
import signal
import socket
import struct
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from lectern.playout.sentences import Isolated, sentence

HAND_OVER = sys.platform == "linux"
"""Whether a session can be handed to another process; if not, the next worker begins a new session."""

_TCP_INFO_BYTES = 232
_BYTES_ACKED, _BYTES_RECEIVED, _NOT_SENT, _BYTES_SENT, _BYTES_RETRANS = 120, 128, 144, 200, 208
_UNACKED = 24
_SET_PDEATHSIG = 1
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_libc = ctypes.CDLL(None, use_errno=True)


class Counts(NamedTuple):
    """Bytes that a connection took from us (*written*), and those of them that the peer has *acknowledged*.

    *read* is the number of the peer's bytes that a process has taken from the kernel; *waits* tells whether any byte
    of ours is still unsent or unacknowledged.
    """

    written: int
    acknowledged: int
    read: int
    waits: bool


class Now(NamedTuple):
    """The time of a tick by two clocks: *mono* is by time.monotonic, *wall* is epoch seconds."""

    mono: float
    wall: float

    @classmethod
    def read(cls) -> "Now":
        """The time now."""
        return cls(time.monotonic(), time.time())


def boot_now() -> float:
    """Seconds since the machine started: the same for all its processes, and not moved by setting a clock."""
    return time.clock_gettime(_BOOT_CLOCK)


def boot_id() -> str:
    """A name of this start of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"pid 1 since {int(time.time() - boot_now()) // 60}"


def memory_file(name: str) -> int:
    """The descriptor of a file that has no name on any disk."""
    if sys.platform == "linux":
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:  # type: ignore[unreachable,unused-ignore]
        return os.dup(file.fileno())


def counts(connection: socket.socket) -> Counts | None:
    """The kernel's counts of a TCP connection at this moment; None if it keeps none."""
    if sys.platform != "linux":
        return None
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    if len(info) < _BYTES_RETRANS + 8:
        return None
    acknowledged, received = struct.unpack_from("=QQ", info, _BYTES_ACKED)
    sent, again = struct.unpack_from("=QQ", info, _BYTES_SENT)
    (not_sent,) = struct.unpack_from("=I", info, _NOT_SENT)
    (unacked,) = struct.unpack_from("=I", info, _UNACKED)
    waiting = array.array("i", [0])
    fcntl.ioctl(connection.fileno(), termios.FIONREAD, waiting)
    return Counts(sent - again + not_sent, acknowledged, received - waiting[0], bool(not_sent or unacked))


def reset(connection: socket.socket) -> None:
    """Reset a connection for all processes that hold it, and throw away what the kernel had not yet sent."""
    if sys.platform == "linux":
        unspecified = struct.pack("=H14x", socket.AF_UNSPEC)
        _libc.connect(connection.fileno(), unspecified, len(unspecified))
    else:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its *parent* ends; exit at once if the parent has ended already."""
    if sys.platform == "linux":
        _libc.prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)


def say(text: str) -> None:
    """Write one line to the log, with the time; a log that takes nothing ends no class."""
    with suppress(OSError):
        sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} lectern playout: {text}\n")
        sys.stderr.flush()


SLOW_S = 3.0
"""Seconds after which a write that has not ended is reported."""


class StateFile:
    """Keeps the file at *path* as *text* makes it, which a thread calls; *what* is its name for people.

    A disk that hangs holds up this thread and nobody else. There are never two writes at once: the late one could
    replace the newer one.
    """

    def __init__(self, what: str, path: Path, text: Callable[[], str], *, is_synced: bool) -> None:
        self.path = path
        self._what, self._text, self._is_synced = what, text, is_synced
        self._since = math.inf  # when the first write was asked for that has not ended, monotonic
        self._why: str | None = None
        self._wakes, self._lock = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None

    def write(self) -> None:
        """Have the text as it is now, or newer, written soon."""
        with self._lock:
            self._since = min(self._since, time.monotonic())
            self._wakes.set()
        if self._thread is None:
            thread = threading.Thread(target=self._write_newest, name=self.path.name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no process is left: the next write tries again
                self._since, self._why = math.inf, self._cannot(error)
            else:
                self._thread = thread

    @property
    def is_written(self) -> bool:
        """Whether no write is under way, or waits."""
        return self._since == math.inf

    @property
    def problem(self) -> str | None:
        """Why the file is not as it should be; None if it is, or is just being written."""
        if time.monotonic() - self._since > SLOW_S:
            return f"{self._what} is not written yet: the disk is slow, or hangs"
        return self._why

    def _cannot(self, why: object) -> str:
        return sentence("{what} cannot be written: {why}", what=self._what, why=why)

    def _write_newest(self) -> None:
        for draft in self.path.parent.glob(f".{self.path.name}.*.tmp"):  # of processes that were killed
            with suppress(OSError):
                draft.unlink()
        while True:
            self._wakes.wait()
            self._wakes.clear()
            with Isolated() as isolated:  # the next write is tried, whatever it was
                replace(self.path, self._text().encode(), is_synced=self._is_synced)
            why = isolated.error.strerror if isinstance(isolated.error, OSError) else None
            self._why = self._cannot(why or isolated.fault) if isolated.error else None
            with self._lock:
                if not self._wakes.is_set():
                    self._since = math.inf


def replace(path: Path, data: bytes, *, is_synced: bool) -> None:
    """Replace the file *path* as a whole, or not at all; *is_synced* returns when it is on the disk. Raises OSError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            if is_synced:
                os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    if is_synced:
        sync(path.parent)


def sync(path: Path) -> None:
    """Make the bytes of a file, or the names in a folder, survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
