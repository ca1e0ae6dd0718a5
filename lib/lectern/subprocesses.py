"""Starts local programs, as the only module that does so; each has a time limit, and none outlives us."""

import asyncio
import errno
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lectern.errors import Caught, Misuse, TryAgain
from lectern.i18n import Text, msgid
from lectern.playout import kernel
from lectern.playout.sentences import cleaned
from lectern.timing import shielded
from lectern.urls import redact


# Starts programs in threads of their own, because the start waits for the child's first turn on a processor. On a
# busy machine each start takes a tenth of a second and more, in which an event loop would pass on no lease.
class Started:
    """A program and what it prints, for the loop in which it was started.

    The thread that started it lives as long as the program: Linux kills a child that wants to die with its parent
    as soon as that thread ends.
    """

    def __init__(self, popen: "subprocess.Popen[bytes]", ended: asyncio.Event, on_line: "OnLine | None") -> None:
        self.popen = popen
        self.ended = ended
        """Set when the program has ended, whoever holds its pipes."""
        self.out, self.err = ProgramOutput(on_line), ProgramOutput()
        self.readers: list[asyncio.Future[None]] = []
        self._pipes: list[asyncio.BaseTransport] = []

    async def connect(self) -> None:
        """Connect the program's pipes to the loop, and begin to read what it prints."""
        loop = asyncio.get_running_loop()
        for pipe, output in ((self.popen.stdout, self.out), (self.popen.stderr, self.err)):
            stream = asyncio.StreamReader()
            self._pipes.append((await loop.connect_read_pipe(partial(asyncio.StreamReaderProtocol, stream), pipe))[0])
            self.readers.append(asyncio.ensure_future(output.drain(stream)))

    @property
    def is_over(self) -> bool:
        """Whether the program was reaped, and nobody holds its pipes."""
        return self.popen.returncode is not None and all(reader.done() for reader in self.readers)

    def raise_from_readers(self) -> None:
        """Raise the exception that on_line raised, if it did."""
        for reader in self.readers:
            if reader.done():
                reader.result()

    def close(self) -> None:
        """Read no more, and close our ends of the pipes, also of pipes that someone in another session still holds."""
        for reader in self.readers:
            reader.cancel()
        for pipe in self._pipes:
            pipe.close()


async def _start(
    name: str, begin: "Callable[[], subprocess.Popen[bytes]]", stdin: bytes | None, on_line: "OnLine | None"
) -> Started:
    """Start the program *name*, which reads *stdin*; raises OSError if it cannot be started."""
    loop = asyncio.get_running_loop()
    coming: asyncio.Future[subprocess.Popen[bytes]] = loop.create_future()
    ended = asyncio.Event()

    def came(popen: "subprocess.Popen[bytes] | None", error: Exception | None) -> None:
        if popen is not None and coming.done():  # whoever wanted it was cancelled
            _kill(popen)
        elif popen is not None:
            coming.set_result(popen)
        elif error is not None and not coming.done():
            coming.set_exception(error)

    def live() -> None:
        popen = None
        with Caught() as failed:  # what is raised is raised to whoever starts the program
            popen = begin()
        is_told = _tell(loop, came, popen, failed.error)
        if popen is None:
            return
        if not is_told:
            _kill_group(popen)
        _feed(popen, stdin or b"")
        popen.wait()
        if not _tell(loop, ended.set):  # its loop is closed, perhaps before it knew of the pipes
            _kill(popen)

    try:
        threading.Thread(target=live, name=f"process {name}", daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, Text("no thread to be had just now")) from error

    with ExitStack() as failed:
        failed.callback(_give_up, coming)
        started = Started(await coming, ended, on_line)
        failed.callback(started.close)
        await started.connect()
        failed.pop_all()
    return started


def _give_up(coming: "asyncio.Future[subprocess.Popen[bytes]]") -> None:
    """End a program whose run is cancelled before it is there, or at the very moment it is."""
    if not coming.cancel() and not coming.cancelled() and coming.exception() is None:
        _kill(coming.result())


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *args: object) -> bool:
    """Have *call* called in the loop; False if the loop is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *args)
        return True
    return False


def _feed(popen: "subprocess.Popen[bytes]", text: bytes) -> None:
    if popen.stdin is not None:
        with suppress(BrokenPipeError, ConnectionResetError), popen.stdin:  # it may end without reading
            popen.stdin.write(text)


def _kill_group(popen: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError, PermissionError):  # empty; or, not on Linux, only zombies
        os.killpg(popen.pid, signal.SIGKILL)


def _kill(popen: "subprocess.Popen[bytes]") -> None:
    _kill_group(popen)
    for pipe in (popen.stdout, popen.stderr):
        if pipe is not None:
            pipe.close()


KEPT_BYTES = 8192
"""Number of bytes that are kept of the end of each output."""

CHUNK_BYTES = 65536

OnLine = Callable[[str], bool | None]
"""Called with each line; a line for which it returns False does not count as progress."""


@dataclass
class ProgramOutput:
    """What a program prints: keeps the end of it, hands each line on, and remembers the last progress."""

    on_line: OnLine | None = None
    progressed_at: float = field(default_factory=time.monotonic)
    kept: bytearray = field(default_factory=bytearray)
    rest: bytes = b""

    @property
    def text(self) -> str:
        """The last 8 KiB."""
        return self.kept.decode(errors="replace")

    def add(self, data: bytes) -> None:
        """Hand on the lines that *data* completes, at newlines or carriage returns; a longer line is cut at 64 KiB."""
        self.kept += data[-KEPT_BYTES:]
        del self.kept[:-KEPT_BYTES]
        *whole, self.rest = re.split(rb"[\r\n]+", self.rest + data)
        if len(self.rest) > CHUNK_BYTES:
            whole, self.rest = [*whole, self.rest], b""
        for line in whole:
            self._hand_on(line)

    def end(self) -> None:
        """Hand on what is left at the end of the stream."""
        self._hand_on(self.rest)
        self.rest = b""

    async def drain(self, stream: asyncio.StreamReader) -> None:
        """Read *stream* to its end."""
        while data := await stream.read(CHUNK_BYTES):
            self.add(data)
        self.end()

    def _hand_on(self, line: bytes) -> None:
        if line and (self.on_line is None or self.on_line(line.decode(errors="replace")) is not False):
            self.progressed_at = time.monotonic()


def last_line(text: str) -> str:
    """The last line of *text* that is not blank, cleaned, with secrets in URLs masked, which programs print, too."""
    return cleaned(redact(next((line for line in reversed(re.split(r"[\r\n]+", text)) if line.strip()), "")))


# Runs in a child between fork and exec; imports nothing there, because another thread could hold the import lock.
def preexec(
    file_limit_bytes: int | None, nice: int, memory_limit_bytes: int | None = None
) -> Callable[[], None] | None:
    """A function for the child: die with us, bound its files and memory, give way by *nice*; None if there is nothing.

    Shared libraries do not count as memory: those of ffmpeg alone take 200 MB of addresses.
    """
    if sys.platform != "linux" and file_limit_bytes is None and memory_limit_bytes is None and not nice:
        return None
    parent = os.getpid()

    def child() -> None:
        if nice:
            os.nice(nice)
        if file_limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit_bytes, file_limit_bytes))
        if memory_limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (memory_limit_bytes, memory_limit_bytes))
        kernel.die_with(parent)

    return child


_POLL_S = 0.02
_LOOK_S = 0.25
_REAP_S = 10.0
GIVES_WAY = 10
"""The niceness of work that may take longer while classes are on air: downloads, remuxing, looks at recordings."""

_NO_ROOM = ("No space left on device", "Disk quota exceeded", "Read-only file system")


class _Ended(TryAgain):
    said = ""

    def __init__(self, program: str, seconds: float, last_words: str) -> None:
        super().__init__(Text(self.said, program=program, seconds=seconds, last_words=last_words or Text("nothing")))
        self.seconds = seconds
        self.last_words = last_words


class TimedOut(_Ended):
    """A program did not end in its time, and was ended."""

    said = msgid("{program}: not done after {seconds:.1f} s, ended; it said last: {last_words}")


class Stalled(_Ended):
    """A program showed no progress for too long, and was ended."""

    said = msgid("{program}: no progress for {seconds:.1f} s, ended; it said last: {last_words}")


@dataclass(frozen=True)
class Finished:
    """A program that ended by itself; *output* and *errors* are the last 8 KiB of each."""

    returncode: int
    output: str
    errors: str

    @property
    def last_words(self) -> str:
        """The last line of its errors."""
        return last_line(self.errors)

    @property
    def has_no_room(self) -> bool:
        """Whether its errors, in English, say that a disk takes nothing."""
        return any(words in self.errors for words in _NO_ROOM)


async def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    stall_s: float | None = None,
    on_line: OnLine | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    grace_s: float = 3.0,
    file_limit_bytes: int | None = None,
    stdin: bytes | None = None,
    nice: int = 0,
    memory_limit_bytes: int | None = None,
) -> Finished:
    """Run a program to its end, in a process group of its own, without a shell.

    It stays in our session: Linux shares the processors out between sessions first (autogroup), and *nice*, which is
    added to our niceness, would count for nothing between two.

    Its parameters are what subprocess itself has, and how the program is watched: few callers name more than two.
    *on_line* is given each line of stdout; *env* is added to our environment; no file that it writes can grow over
    *file_limit_bytes* (it is then killed by SIGXFSZ), nor its memory over *memory_limit_bytes*. It reads *stdin*, else
    nothing. Any return code is returned: the caller judges it. A program that takes longer than *timeout_s*, shows no
    line for *stall_s*, or whose run is cancelled, gets TERM, after *grace_s* KILL, with all its children.
    Raises TimedOut, Stalled, TryAgain (it cannot be ended: its disk hangs), Misuse (no such program).
    """
    started_at = time.monotonic()
    before_exec = preexec(file_limit_bytes, nice, memory_limit_bytes)

    def begin() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=None if env is None else {**os.environ, **env},
            process_group=0,
            preexec_fn=before_exec,  # noqa: PLW1509 (it only calls the system; see lectern.subprocesses)
        )

    try:
        child = await _start(argv[0], begin, stdin, on_line)
    except (FileNotFoundError, PermissionError) as error:
        if cwd is not None and str(error.filename) == str(cwd):
            raise Misuse(
                "{argv}: cannot be started in {cwd}: there is no such folder", argv=argv[0], cwd=cwd
            ) from error
        name = Path(argv[0]).name
        text = msgid("{argv}: cannot be started ({strerror}); install it (apt-get install {name}) or give its path")
        raise Misuse(text, argv=argv[0], strerror=error.strerror, name=name) from error
    except OSError as error:  # no process or memory to be had just now
        raise TryAgain("{argv}: cannot be started: {strerror}", argv=argv[0], strerror=error.strerror) from error
    try:
        cause = await _watch(child, started_at + timeout_s, stall_s, grace_s)
    finally:
        await shielded(_end(child, grace_s))
    if cause is not None:
        seconds = time.monotonic() - (started_at if cause is TimedOut else child.out.progressed_at)
        raise cause(argv[0], seconds, last_line(child.err.text))
    returncode = child.popen.returncode
    assert returncode is not None  # _end has reaped it
    return Finished(returncode, child.out.text, child.err.text)


async def _watch(
    child: Started, deadline: float, stall_s: float | None, grace_s: float
) -> type[TimedOut] | type[Stalled] | None:
    """Wait for the end of the program and of its outputs; returns the reason to end it, if there is one."""
    ending = asyncio.ensure_future(child.ended.wait())
    try:
        while child.popen.returncode is None:
            stalled_at = deadline if stall_s is None else child.out.progressed_at + stall_s
            pause_s = min(deadline, stalled_at) - time.monotonic()
            if pause_s <= 0:
                return TimedOut if deadline <= stalled_at else Stalled
            waited: set[asyncio.Future[Any]] = {ending, *(reader for reader in child.readers if not reader.done())}
            await asyncio.wait(waited, timeout=min(pause_s, _LOOK_S), return_when=asyncio.FIRST_COMPLETED)
            child.raise_from_readers()
        # A grandchild that holds the pipes has *grace_s* to end by itself; then it is ended with the group.
        await asyncio.wait(child.readers, timeout=grace_s)
        child.raise_from_readers()
        return None
    finally:
        ending.cancel()


async def _end(child: Started, grace_s: float) -> None:
    """End the program and its group if anything is left of them, and reap it."""
    if not child.is_over:
        await _end_group(child, signal.SIGTERM, grace_s)
        await _end_group(child, signal.SIGKILL, grace_s)
    with suppress(TimeoutError):
        async with asyncio.timeout(_REAP_S):
            await child.ended.wait()
    child.close()
    await asyncio.wait(child.readers)
    if child.popen.returncode is None:
        pid = child.popen.pid
        raise TryAgain("process {pid} cannot be ended, not even by KILL; does its disk hang?", pid=pid)


async def _end_group(child: Started, sign: signal.Signals, grace_s: float) -> None:
    """Send *sign* to the group, and wait until it is empty or *grace_s* are over.

    What is left of the group when its leader and its pipes are gone mostly waits to be reaped by somebody else.
    """
    give_up_at = time.monotonic() + grace_s
    try:
        os.killpg(child.popen.pid, sign)
        while time.monotonic() < give_up_at and not child.is_over:
            await asyncio.sleep(_POLL_S)
            os.killpg(child.popen.pid, 0)
    except (ProcessLookupError, PermissionError):  # empty; or, not on Linux, only zombies
        return
