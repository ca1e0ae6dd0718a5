"""A worker process, as its holder sees it."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lectern.playout.lines import say
from lectern.playout.pipe import Gone, Pipe

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
    found = sorted(library.parent.glob(f"python3*/{PROGRAM.relative_to(library)}"))
    return found[-1] if found else PROGRAM


def no_start(error: OSError) -> str:
    """Why a worker could not be started, in words that follow "the worker"."""
    return f"cannot be started: {error.strerror or error}"


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
        """Its messages except "loaded", with their files."""
        try:
            messages = self.pipe.hear()
        except Gone:
            return []  # `is_over` reports that
        for message, _ in messages:
            if message["say"] == "loaded":
                self.loaded = message
        return [one for one in messages if one[0]["say"] != "loaded"]

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
