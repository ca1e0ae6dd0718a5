"""Runs steps of the rollout, each in a process of its own that can be killed; they share the time for the imports."""

import contextlib
import io
import json
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.stage.forked import PROCESSES

Fields = dict[str, Any]
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Answered:
    """What a step printed and how it ended; a negative code is the signal that killed it."""

    code: int
    fields: Fields
    errors: str

    @property
    def msg(self) -> str:
        return str(self.fields.get("msg", ""))


class Step:
    """One `lectern rollout ...` at work, which writes to files beside *place*.

    *fault* is put into its process before it begins.
    """

    def __init__(self, words: list[str], wanted: str, fault: str, place: Path) -> None:
        self._out, self._err = place.with_suffix(".out"), place.with_suffix(".log")
        self._process = PROCESSES.Process(target=_run, args=(words, wanted, fault, str(self._out), str(self._err)))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def answered(self) -> Answered:
        self._process.join(TIMEOUT_S)
        assert self._process.exitcode is not None, f"{self.pid} runs for {TIMEOUT_S} s"
        text = self._out.read_text() if self._out.exists() else ""
        errors = self._err.read_text() if self._err.exists() else ""
        return Answered(self._process.exitcode, json.loads(text) if text.strip() else {}, errors)

    def end(self) -> None:
        """Kill it if it is still at work."""
        self._process.kill()
        self._process.join(10)


def _run(words: list[str], wanted: str, fault: str, out: str, err: str) -> None:
    for number, path in ((1, out), (2, err)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.argv = io.StringIO(wanted), ["lectern", "rollout", *words]
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 (the process's own, until its end)
    code = 1
    try:
        exec(fault, {})
        from lectern.cli import main
        from lectern.rollout import commands

        commands.app.command(name="window")(lambda: commands._answer(_window))
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 (it is written down, and the code tells)
        Path(err).open("a").write(traceback.format_exc())  # noqa: SIM115 (it ends at once)
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)


def _window(wanted: Any) -> Any:
    """A window in one process, which a test can kill: what `open` leaves behind waits for each task."""
    from lectern.rollout import window
    from lectern.rollout.journal import WINDOW, RolloutJournal, interruption, locked
    from lectern.rollout.result import StepAnswer
    from lectern.rollout.steps import StepWork

    with interruption() as check, locked(wanted.rollout_dir, work=WINDOW):
        journal = RolloutJournal.of(wanted)
        if journal.state(wanted.id) == "finished":
            return StepAnswer(said=["finished already"])
        window.make_ready(wanted, journal)
        at_once: Any = SimpleNamespace(wait=lambda _task: None, tell=lambda _task, _answer: None)
        found = window.Window(StepWork(wanted, journal, check), at_once)
        window.through(found)
        return found.answer
