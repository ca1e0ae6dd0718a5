"""A worker process as its supervisor sees it: its start and end, the pipe to it, and the memory they share."""

import ctypes
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from lectern.playout import kernel
from lectern.playout.kernel import say
from lectern.playout.sentences import sentence

# Messages between supervisor and worker: one JSON object a line, with open files beside it; never blocks.
_RECEIVE_BYTES = 64 * 1024
_MAX_FILES = 16


class Gone(Exception):
    """The process at the other end has ended."""


class Pipe:
    """One end of a pair of sockets. What does not go at once waits here until `flush`."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(0)
        self.connection = connection
        self._out: deque[tuple[bytes, list[int]]] = deque()
        self._in = b""
        self._files: deque[int] = deque()

    def say(self, what: str, files: tuple[int, ...] = (), **more: Any) -> None:  # noqa: ANN401 (JSON)
        """Send a message, with copies of *files*, which the caller may close; raises OSError if too many are open."""
        line = json.dumps({"say": what, "files": len(files), **more}).encode() + b"\n"
        with ExitStack() as failed:
            copies = list[int]()
            for file in files:
                copies.append(os.dup(file))
                failed.callback(os.close, copies[-1])
            failed.pop_all()
        self._out.append((line, copies))
        self.flush()

    @property
    def waits(self) -> bool:
        """Whether something waits until the other side has read what came before."""
        return bool(self._out)

    def flush(self) -> None:
        """Send what waits, as far as that is possible without blocking; `hear` tells whether the other side lives."""
        while self._out:
            line, files = self._out[0]
            try:
                sent = socket.send_fds(self.connection, [line], files) if files else self.connection.send(line)
            except BlockingIOError:
                return
            except OSError:
                sent = len(line)
            for file in files:
                os.close(file)
            self._out[0] = (line[sent:], [])
            if sent == len(line):
                self._out.popleft()

    def hear(self) -> list[tuple[dict[str, Any], list[int]]]:
        """The messages that have arrived, with their files; raises Gone if the other side has ended.

        A message without all of its files is left out: the kernel gives none to a process that has too many open.
        """
        messages: list[tuple[dict[str, Any], list[int]]] = []
        while True:
            try:
                data, files, _, _ = socket.recv_fds(self.connection, _RECEIVE_BYTES, _MAX_FILES)
            except BlockingIOError:
                return messages
            except OSError:
                data, files = b"", []  # it ended, and had not read all that was said to it
            if not data:
                if messages:
                    return messages
                raise Gone
            self._files.extend(files)
            *lines, self._in = (self._in + data).split(b"\n")
            for line in lines:
                message = json.loads(line)
                beside = [self._files.popleft() for _ in range(min(message["files"], len(self._files)))]
                if len(beside) == message["files"]:
                    messages.append((message, beside))
                    continue
                say(f"{message['say']}: too many files are open for those of this message, which is left out")
                for descriptor in beside:
                    os.close(descriptor)

    def close(self) -> None:
        """Close this end, and the files that were not taken or sent."""
        self.connection.close()
        for descriptor in [*self._files, *(file for _, files in self._out for file in files)]:
            os.close(descriptor)
        self._files.clear()
        self._out.clear()


PROGRAM = Path(__file__).with_name("__main__.py")
"""Not resolved: if the path leads through a link to the current release, the next worker is of that release."""
LOAD_S = 30.0
"""Seconds after which a worker that is not loaded is given up."""
KILL_S = 1.0
"""Seconds in which a killed worker ends, unless the kernel keeps a thread of it that reads from a disk that hangs."""


def program() -> Path:
    """The program at the end of `PROGRAM` now; the next release may have another version of Python in its path."""
    if PROGRAM.exists():
        return PROGRAM
    library = PROGRAM.parents[3]  # …/lib/python3.13/site-packages/lectern/playout/__main__.py
    paths = sorted(library.parent.glob(f"python3*/{PROGRAM.relative_to(library)}"))
    return paths[-1] if paths else PROGRAM


def no_start(error: OSError) -> str:
    """Why a worker could not be started, in words that follow "the worker"."""
    return sentence("cannot be started: {why}", why=error.strerror or error)


class Child:
    """A worker that was started; `loaded` is its message that it is ready to go on air. Raises OSError."""

    def __init__(self, program: Path, folder: Path, files: dict[str, int], ca_file: str | None) -> None:
        ours, theirs = socket.socketpair()
        self.pipe = Pipe(ours)
        self.program = program
        self.began_at = time.monotonic()
        self.loaded: dict[str, Any] | None = None
        self.on_air_at: float | None = None
        argv = [sys.executable, "-I", "-S", str(program), "worker", "--dir", str(folder), "--holder", str(os.getpid())]
        argv += ["--pipe", str(theirs.fileno())]
        argv += [part for name, file in files.items() for part in (f"--{name}", str(file))]
        argv += ["--ca-file", ca_file] if ca_file else []
        try:
            self.process = subprocess.Popen(argv, pass_fds=[theirs.fileno(), *files.values()], stdin=subprocess.DEVNULL)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()

    def hear(self) -> list[tuple[dict[str, Any], list[int]]]:
        """Its messages, with their files."""
        try:
            messages = self.pipe.hear()
        except Gone:
            return []  # `is_over` reports that
        for message, _ in messages:
            if message["say"] == "loaded":
                self.loaded = message
        return messages

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    @property
    def is_late(self) -> bool:
        """Whether it has not reported "loaded" in time."""
        return self.loaded is None and time.monotonic() - self.began_at > LOAD_S

    @property
    def end(self) -> str:
        """How it ended, in words that follow "the worker"."""
        code = self.process.returncode
        if code is None:
            return "did not say within 30 s that it was loaded"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"

    def kill(self) -> None:
        """Kill it, and return when no code of it runs any more: two workers must never write on one connection."""
        with suppress(ProcessLookupError):
            self.process.kill()
        try:
            self.process.wait(KILL_S)
        except subprocess.TimeoutExpired:
            say(f"process {self.process.pid} was killed and has not ended: a disk hangs; nothing waits for it")

    def close(self) -> None:
        """Kill it, and close its pipe."""
        self.kill()
        self.pipe.close()


class Shared(ctypes.Structure):
    """Memory made by the supervisor; a worker opens it by the descriptor that it inherits. Make it by `at`.

    The processor writes each field at once: whoever reads one meanwhile sees the number before, or the new one.
    """

    file: int
    lease_until: float
    """The end of the lease by kernel.boot_now."""
    ticked_at: float
    """The worker's last tick, by time.monotonic."""
    handled: int
    """The number of the session that the worker handles, or handled when it hung; 0 for none."""
    _fields_ = (
        *(("lease_until", ctypes.c_double), ("_first", ctypes.c_byte * 56)),
        *(("ticked_at", ctypes.c_double), ("_second", ctypes.c_byte * 56)),
        ("handled", ctypes.c_uint64),
    )

    @classmethod
    def at(cls, file: int | None = None) -> "Shared":
        """The memory of *file*, or new memory."""
        if file is None:
            file = kernel.memory_file("lectern-playout")
            os.ftruncate(file, mmap.PAGESIZE)
        self = cls.from_buffer(mmap.mmap(file, mmap.PAGESIZE))
        self.file = file
        return self

    def held(self) -> bool:
        """Whether the lease has not expired, so that sending is allowed."""
        return kernel.boot_now() < self.lease_until

    def tick(self) -> None:
        """Record that the worker is alive, and handles no session."""
        self.handled, self.ticked_at = 0, time.monotonic()

    def handle(self, session: int) -> None:
        """Record the number of the session that is handled now; 0 for none."""
        self.handled = session
