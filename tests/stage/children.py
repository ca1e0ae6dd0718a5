"""Processes that tests start: each with its log, each ended by its id."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tests import marks
from tests.stage.forked import Forked
from tests.waiting import wait_until

UP_S = 600.0
"""A start is no claim: whoever waits for one waits while the process lives, and this is the end of that."""


def started(module: str) -> tuple[str, str, str]:
    """How tests start the command, by the `main` of *module*: it is a fork unless LECTERN_BY_EXEC is set."""
    return (sys.executable, "-c", f"from {module} import main; main()")


LECTERN = started("lectern.cli")

# A child dies with the tests, even where they are killed: the setting survives the exec.
_MORTAL = "import ctypes,os,sys; ctypes.CDLL(None).prctl(1, 9); os.execvp(sys.argv[1], sys.argv[1:])"


def is_forked(argv: Sequence[str]) -> bool:
    """Whether *argv* is the command, which need not be started from nothing."""
    return _module(argv) is not None and not os.environ.get("LECTERN_BY_EXEC")


def _module(argv: Sequence[str]) -> str | None:
    """The module by whose `main` the command is started; None if *argv* is another program."""
    words = argv[2].split() if len(argv) > 2 else []
    return words[1] if words[:1] == ["from"] and tuple(argv[:3]) == started(words[1]) else None


class Child:
    """A process of ours, with its log; it is ended by its id."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        if not Path(argv[0]).name.startswith(("redis-server", "valkey-server")):
            marks.starts(" ".join(argv[:4]))
        self.log = log
        self._process: Forked | subprocess.Popen[bytes]
        if is_forked(argv):
            log.touch()  # the fork writes to it a moment later, and it is read at once
            self._process = Forked(argv[3:], environment, log.parent, log, module=str(_module(argv)))
        else:
            with log.open("ab") as sink:
                self._process = subprocess.Popen(
                    [sys.executable, "-S", "-c", _MORTAL, *argv],
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=sink,
                    cwd=log.parent,
                    start_new_session=True,
                )
        self.pid = self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, words: str, timeout_s: float = UP_S) -> None:
        """Wait until it has said *words*; it must not end before."""

        def has_said() -> bool:
            assert self.exit_code is None or words in self.said(), f"ended ({self.exit_code}) before it said {words!r}"
            return words in self.said()

        wait_until(has_said, timeout_s=timeout_s, description=f"{self.log.stem} says {words!r}")

    def end(self, timeout_s: float = 60.0) -> int:
        """SIGTERM; returns the exit code. What does not listen is killed, and fails the test."""
        with suppress(ProcessLookupError):
            self.go_on()
            self._process.terminate()
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise AssertionError(f"{self.log.stem} did not end within {timeout_s:g} s of SIGTERM") from error

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: it does not get to another instruction."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


def running_with(*words: str, name: str = "") -> list[int]:
    """The processes that have all *words* in their command line, and are called *name*, if that is given."""
    found = []
    for process in psutil.process_iter(["pid", "name", "cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or [])
        is_called = name in ("", process.info["name"]) or f"-m town.doubles {name} " in command
        is_there = process.pid != os.getpid() and process.info["status"] != psutil.STATUS_ZOMBIE
        if is_there and is_called and all(word in command for word in words):
            found.append(int(process.pid))
    return found
