"""A migration, or its way back, that is killed anywhere is finished by the next call, or taken back."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from tests.rollout.old_streamer import NOW, OldStreamer, flv

pytestmark = pytest.mark.night(draw=2)  # each is an old host taken over several times

ROOT = Path(__file__).parents[2]
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a kill, unlike a power cut, does not ask for a disk
CALLS = ("rename", "mkdir", "rmdir", "chmod", "chown", "unlink", "fsync", "open", "sync")
ORIGIN = "http://origin.example"
WAYS = ("out, then out", "out, then back", "back, then back", "back, then out")


def made(top: Path) -> OldStreamer:
    """A host on which every kind of step is taken."""
    host = OldStreamer(top, [top / "old"])
    host.has_tables()
    host.has_class("c-1", f"{ORIGIN}/7.flv")
    host.has_class("c-2", f"{ORIGIN}/8_720P.flv")
    host.has_class("c-3", f"{ORIGIN}/9/intro.flv", NOW - 9000, NOW - 5000)
    host.has_file("video/c-1.flv", flv(7), age_s=10)
    host.has_file("video/7/7.flv", flv(6), age_s=20)
    host.has_file("video/9", b"in the way")
    host.has_file("video/lessons/intro.flv", flv(9))
    host.has_file("video/lessons/notes.txt", b"notes")
    host.has_file("old/10/10.flv", flv(10))
    (host.video_root / "link").symlink_to("/etc")
    (host.video_root / "lessons").chmod(0o2775)
    return host


class Clock:
    """Ticks before and after every call that changes something; kills this process at the tick *fatal*."""

    def __init__(self, fatal: int = 0) -> None:
        self.ticks = 0
        self._fatal = fatal
        self._real = {name: getattr(os, name) for name in CALLS}

    def __enter__(self) -> "Clock":
        for name, real in self._real.items():
            setattr(os, name, self._watched(real))
        return self

    def __exit__(self, *_: object) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)

    def _watched(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            found = real(*args, **kwargs)
            self.tick()
            return found

        return call

    def tick(self, *_: object) -> None:
        self.ticks += 1
        if self.ticks == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def engine(self, host: OldStreamer) -> Engine:
        """One whose statements tick too."""
        engine = host.engine()
        for moment in ("before_cursor_execute", "after_cursor_execute", "commit"):
            event.listen(engine, moment, self.tick)
        return engine


def go(host: OldStreamer, way: str, clock: Clock) -> None:
    with clock:
        if way == "out":
            host.adopt(engine=clock.engine(host))
        else:
            host.undo()


def killed(host: OldStreamer, way: str, fatal: int) -> None:
    """A child goes the way and kills itself at the tick *fatal*."""
    child = os.fork()
    if child == 0:
        try:
            go(host, way, Clock(fatal))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the kill at tick {fatal} never fired"


def matrix(ways: str) -> int:
    """Kill the first of the *ways* at each of its ticks, then go the second; returns how many kills there were."""
    first, second = ways.split(", then ")
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        host = begun(Path(folder), "back")
        inside, inside_rows = host.tree(), host.dump()
        outside = begun(Path(folder), "out").tree()
        clock = Clock()
        go(begun(Path(folder), first), first, clock)
        gc.collect()
        gc.freeze()  # so that a fork copies less
        for fatal in range(1, clock.ticks + 1):
            host = begun(Path(folder), first)
            killed(host, first, fatal)
            if second == "out":
                host.adopt()
                assert (host.tree(), host.dump()) == (inside, inside_rows), fatal
                assert host.adopt() == [], fatal
            host.undo()
            assert host.tree() == outside, fatal
            assert host.undo() == [], fatal
            host.adopt()
            assert (host.tree(), host.dump()) == (inside, inside_rows), fatal
        return clock.ticks


def begun(folder: Path, way: str) -> OldStreamer:
    """A host, always in the same place, from which to go the *way*."""
    shutil.rmtree(folder / "host", ignore_errors=True)
    host = made(folder / "host")
    if way == "back":
        host.adopt()
    return host


@pytest.fixture(scope="module")
def crashes() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """One process a way: of their own, because the tests' has threads, which a fork must not."""
    with ExitStack() as stack:
        yield {
            ways: stack.enter_context(
                subprocess.Popen(
                    [sys.executable, __file__, ways],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                )
            )
            for ways in WAYS
        }


@pytest.mark.parametrize("ways", WAYS)
def test_killed_at_any_step_the_next_call_makes_it_right(crashes: dict[str, subprocess.Popen[str]], ways: str) -> None:
    """Files and rows are as after an undisturbed migration, or to the byte as before it."""
    told, wrong = crashes[ways].communicate()
    assert crashes[ways].returncode == 0, wrong
    assert int(told) > 40


if __name__ == "__main__":
    print(matrix(sys.argv[1]))  # noqa: T201 (told to the test that started this process)
