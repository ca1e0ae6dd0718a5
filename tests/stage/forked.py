"""Starts ``lectern …`` as a fork of a process that has its imports already, which take seconds of each start."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests import marks

PRELOADED = (
    *(f"lectern.rollout.{name}" for name in ("window", "preflight", "verify", "commands")),
    *(f"lectern.cli.{name}" for name in ("app", "booking", "doctor", "explain", "serving", "status")),
    "flows.resident.process",
    "tests.rollout.steps",
    "tests.stage.children",
    __name__,
)
assert all(map(find_spec, PRELOADED)), "the server of the forks passes in silence over modules that are not there"
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(list(PRELOADED))
_DIES_WITH_ITS_PARENT = 1, signal.SIGKILL


class Forked:
    """One ``lectern …`` at work, as far as tests look at a process that they started."""

    def __init__(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        *streams: Path,
        module: str = "lectern.cli",
    ) -> None:
        self.args = ["lectern", *words]
        marks.starts(" ".join(self.args))
        given = (list(words), dict(environment), str(folder), [str(one) for one in streams], module)
        self._process = PROCESSES.Process(target=_run, args=given)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout_s: float | None = None) -> int:
        """Its exit code, when it has ended; raises TimeoutExpired."""
        self._process.join(timeout_s)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout_s or 0.0)
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def run(
    words: Sequence[str], environment: Mapping[str, str], folder: Path, text: str | None, timeout_s: float
) -> "subprocess.CompletedProcess[str]":
    """Run ``lectern …`` to its end."""
    with TemporaryDirectory(prefix="typed") as made:
        read, out, err = (Path(made) / name for name in ("in", "out", "err"))
        read.write_text(text or "")
        process = Forked(words, environment, folder, out, err, read)
        try:
            code = process.wait(timeout_s)
        finally:
            if process.poll() is None:
                process.kill()
        return subprocess.CompletedProcess(process.args, code, out.read_text(), err.read_text())


def _run(words: list[str], environment: dict[str, str], folder: str, streams: list[str], module: str) -> None:
    """The life of the fork: what a fresh process has, and nothing of the tests' own."""
    import ctypes

    ctypes.CDLL(None).prctl(*_DIES_WITH_ITS_PARENT)
    os.setsid()
    out, err, read = (*streams, "", "")[:3]
    for number, path in ((1, out), (2, err or out)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, number)
        os.close(descriptor)
    descriptor = os.open(read or os.devnull, os.O_RDONLY)
    os.dup2(descriptor, 0)
    os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(folder)
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 (the process's own, until its end)
    sys.argv = ["lectern", *words]
    _prefect_anew()
    try:
        import_module(module).main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _prefect_anew() -> None:
    """Prefect reads its settings when it is imported, and was; it reads them again when the command has set them."""
    import prefect.context
    import prefect.logging.configuration

    def set_anew(settings: Any) -> None:
        options.set_prefect(settings)
        prefect.context.refresh_global_settings_context()
        prefect.logging.configuration.setup_logging(incremental=False)

    from lectern.cli import options

    original = options.set_prefect
    for module in list(sys.modules.values()):
        if module is not options and getattr(module, "set_prefect", None) is original:
            module.set_prefect = set_anew  # type: ignore[attr-defined]
