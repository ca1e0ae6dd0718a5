"""Starts local programs, as the only module that does so; each has a time limit, and none outlives us."""

import asyncio
import os
import re
import resource
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from lectern.errors import Caught, Misuse, TryAgain
from lectern.i18n import Text, msgid
from lectern.playout import kernel
from lectern.playout.sentences import cleaned
from lectern.timing import shielded
from lectern.urls import redact

KEPT_BYTES = 8192
"""Number of bytes that are kept of the end of each output."""

CHUNK_BYTES = 65536

OnLine = Callable[[str], bool | None]
"""Called with each line, in the thread that reads it; a line for which it returns False does not count as progress."""


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

    def _hand_on(self, line: bytes) -> None:
        if line and (self.on_line is None or self.on_line(line.decode(errors="replace")) is not False):
            self.progressed_at = time.monotonic()


def last_line(text: str) -> str:
    """The last line of *text* that is not blank, cleaned, with secrets in URLs masked, which programs print, too."""
    return cleaned(redact(next((line for line in reversed(re.split(r"[\r\n]+", text)) if line.strip()), "")))


# Runs in a child between fork and exec; imports nothing there, because another thread could hold the import lock.
def preexec(file_limit_bytes: int | None, nice: int, memory_limit_bytes: int | None = None) -> Callable[[], None]:
    """A function for the child: die with us, bound its files and memory, give way by *nice*.

    Shared libraries do not count as memory: those of ffmpeg alone take 200 MB of addresses.
    """
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
GRACE_S = 3.0
"""Seconds between TERM and KILL, and for which a grandchild may hold the pipes of a program that has ended."""
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
    line for *stall_s*, or whose run is cancelled, gets TERM, after GRACE_S KILL, with all its children.
    Raises TimedOut, Stalled, TryAgain (not even KILL ends it: its disk hangs), Misuse (no such program).
    """
    before_exec = preexec(file_limit_bytes, nice, memory_limit_bytes)
    begin = partial(_begin, argv, stdin, cwd, env, before_exec)
    program = _Program(argv[0], begin, timeout_s, stall_s, ProgramOutput(on_line))
    try:
        threading.Thread(target=program.live, name=f"process {argv[0]}", daemon=True).start()
    except RuntimeError as error:
        why = Text("no thread to be had just now")
        raise TryAgain("{argv}: cannot be started: {strerror}", argv=argv[0], strerror=why) from error
    try:
        return await asyncio.wrap_future(program.ended)
    except asyncio.CancelledError:
        program.given_up.set()
        if not program.ended.cancelled():  # it has begun
            await shielded(_over(program))
        raise


def _begin(
    argv: Sequence[str],
    stdin: bytes | None,
    cwd: Path | None,
    env: Mapping[str, str] | None,
    before_exec: Callable[[], None],
) -> "subprocess.Popen[bytes]":
    try:
        with ExitStack() as ours:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL if stdin is None else ours.enter_context(_file_of(stdin)),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=None if env is None else {**os.environ, **env},
                process_group=0,
                preexec_fn=before_exec,  # noqa: PLW1509 (it only calls the system; see lectern.subprocesses)
            )
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


def _file_of(text: bytes) -> BinaryIO:
    """A file in memory: the program may read it late, or not at all, and nobody waits for that."""
    file = os.fdopen(kernel.memory_file("stdin"), "w+b")
    file.write(text)
    file.seek(0)
    return file


async def _over(program: "_Program") -> None:
    with Caught():  # also if nobody can end it: whoever is cancelled would try again instead
        await asyncio.wrap_future(program.ended)


@dataclass
class _Program:
    """A program as the thread that starts it sees it, which reads what it prints, and ends it if it must.

    The thread is of its own because the start waits for the child's first turn on a processor: on a busy machine a
    tenth of a second and more, in which an event loop would pass on no lease. It lives as long as the program: Linux
    kills a child that wants to die with its parent as soon as the thread that started it ends.
    """

    name: str
    begin: "Callable[[], subprocess.Popen[bytes]]"
    timeout_s: float
    stall_s: float | None
    out: ProgramOutput
    err: ProgramOutput = field(default_factory=ProgramOutput)
    ended: "Future[Finished]" = field(default_factory=Future)  # running from when the program has begun
    given_up: threading.Event = field(default_factory=threading.Event)  # set when nobody wants it any more
    pipes: selectors.BaseSelector = field(
        default_factory=selectors.PollSelector
    )  # open at the other end; takes no file

    def live(self) -> None:
        """Start the program, and see it to its end: the body of the thread."""
        began_at, popen, finished = time.monotonic(), None, None
        failed = Caught()  # what is raised is raised to whoever runs the program
        with failed:
            popen = self.begin()
        is_wanted = self.ended.set_running_or_notify_cancel()
        if not is_wanted:
            self.given_up.set()
        if popen is not None:
            with failed:
                finished = self._finished(popen, began_at)
        if is_wanted and finished is not None:
            self.ended.set_result(finished)
        elif is_wanted:
            self.ended.set_exception(failed.error)

    def _finished(self, popen: "subprocess.Popen[bytes]", began_at: float) -> Finished:
        assert popen.stdout is not None  # both were asked for
        assert popen.stderr is not None
        with popen.stdout, popen.stderr, self.pipes:
            self.out.progressed_at = time.monotonic()
            self.pipes.register(popen.stdout, selectors.EVENT_READ, self.out)
            self.pipes.register(popen.stderr, selectors.EVENT_READ, self.err)
            try:
                cause = self._watch(popen, began_at + self.timeout_s)
            finally:
                self._end(popen)
        if cause is not None:
            since = began_at if cause is TimedOut else self.out.progressed_at
            raise cause(self.name, time.monotonic() - since, last_line(self.err.text))
        return Finished(popen.returncode, self.out.text, self.err.text)

    def _watch(self, popen: "subprocess.Popen[bytes]", deadline: float) -> type[TimedOut] | type[Stalled] | None:
        """Wait for the end of the program and of its outputs; returns the reason to end it, if there is one."""
        while popen.poll() is None and not self.given_up.is_set():
            stalled_at = deadline if self.stall_s is None else self.out.progressed_at + self.stall_s
            pause_s = min(deadline, stalled_at) - time.monotonic()
            if pause_s <= 0:
                return TimedOut if deadline <= stalled_at else Stalled
            self._read(popen, min(pause_s, _LOOK_S))
        # A grandchild that holds the pipes has GRACE_S to end by itself; then it is ended with the group.
        until = time.monotonic() + GRACE_S
        while not self._is_over(popen) and time.monotonic() < until and not self.given_up.is_set():
            self._read(popen, _LOOK_S)
        return None

    def _is_over(self, popen: "subprocess.Popen[bytes]") -> bool:
        """Whether the program was reaped, and nobody holds its pipes."""
        return popen.poll() is not None and not self.pipes.get_map()

    def _read(self, popen: "subprocess.Popen[bytes]", within_s: float) -> None:
        """Hand on what the program prints, or wait for its end, for at most *within_s*."""
        if not self.pipes.get_map():
            with suppress(subprocess.TimeoutExpired):
                popen.wait(within_s)
            return
        for key, _ in self.pipes.select(within_s):
            if data := os.read(key.fd, CHUNK_BYTES):
                key.data.add(data)
            else:
                self.pipes.unregister(key.fileobj)
                key.data.end()

    def _end(self, popen: "subprocess.Popen[bytes]") -> None:
        """End the program and its group if anything is left of them, and reap it; raises TryAgain if it stays."""
        self.out.on_line = lambda _: False
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if not self._is_over(popen):
                self._end_group(popen, sign)
        with suppress(subprocess.TimeoutExpired):
            popen.wait(_REAP_S)
        if popen.returncode is None:
            raise TryAgain("process {pid} cannot be ended, not even by KILL; does its disk hang?", pid=popen.pid)

    def _end_group(self, popen: "subprocess.Popen[bytes]", sign: signal.Signals) -> None:
        """Send *sign* to the group, and wait for GRACE_S at most until it is empty.

        What is left of the group when its leader and its pipes are gone mostly waits to be reaped by somebody else.
        """
        give_up_at = time.monotonic() + GRACE_S
        with suppress(ProcessLookupError, PermissionError):  # empty; or, not on Linux, only zombies
            os.killpg(popen.pid, sign)
            while time.monotonic() < give_up_at and not self._is_over(popen):
                self._read(popen, _POLL_S)
                os.killpg(popen.pid, 0)
