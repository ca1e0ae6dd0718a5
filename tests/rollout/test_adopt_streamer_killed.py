"""A migration, or its way back, that is killed anywhere is finished by the next call, or taken back."""

import gc
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sqlalchemy import event

from tests.rollout.old_streamer import MEMORY, NOW, ORIGIN, OldStreamer, flv
from tests.stage.forked import PROCESSES

pytestmark = pytest.mark.night(draw=2)  # each is an old host taken over several times

CALLS = ("rename", "mkdir", "rmdir", "chmod", "chown", "unlink", "fsync", "open", "sync")


def begun(folder: Path, way: str) -> OldStreamer:
    """A host, always in the same place, from which to go the *way*; on it, every kind of step is taken."""
    shutil.rmtree(folder / "host", ignore_errors=True)
    host = OldStreamer(folder / "host", [folder / "host" / "old"])
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
    if way == "back":
        host.adopt()
    return host


def go(host: OldStreamer, way: str, fatal: int = 0) -> int:
    """Go the *way*, with a tick before and after each call that changes something; returns how many there were.

    At the tick *fatal*, this process kills itself.
    """
    ticks, real = [0], {name: getattr(os, name) for name in CALLS}

    def tick(*_: object) -> None:
        ticks[0] += 1
        if ticks[0] == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def ticking(*args: Any, **kwargs: Any) -> Any:
            tick()
            found = call(*args, **kwargs)
            tick()
            return found

        return ticking

    engine = host.engine()
    for moment in ("before_cursor_execute", "after_cursor_execute", "commit"):
        event.listen(engine, moment, tick)
    for name, call in real.items():
        setattr(os, name, watched(call))
    try:
        if way == "out":
            host.adopt(engine=engine)
        else:
            host.undo()
    finally:
        for name, call in real.items():
            setattr(os, name, call)
    return ticks[0]


def matrix(first: str, second: str) -> None:
    """Kill the *first* way at each of its ticks, then go the *second*."""
    with TemporaryDirectory(dir=MEMORY) as folder:
        host = begun(Path(folder), "back")
        inside, inside_rows = host.tree(), host.dump()
        outside = begun(Path(folder), "out").tree()
        number = go(begun(Path(folder), first), first)
        assert number > 40
        gc.collect()
        gc.freeze()  # so that a fork copies less
        for fatal in range(1, number + 1):
            host = begun(Path(folder), first)
            if (child := os.fork()) == 0:
                try:
                    go(host, first, fatal)
                finally:
                    os._exit(0)
            _, status = os.waitpid(child, 0)
            assert os.WIFSIGNALED(status), f"the kill at tick {fatal} never fired"
            if second == "out":
                host.adopt()
                assert (host.tree(), host.dump()) == (inside, inside_rows), fatal
                assert host.adopt() == [], fatal
            host.undo()
            assert host.tree() == outside, fatal
            assert host.undo() == [], fatal
            host.adopt()
            assert (host.tree(), host.dump()) == (inside, inside_rows), fatal


@pytest.mark.parametrize("second", ["out", "back"])
@pytest.mark.parametrize("first", ["out", "back"])
def test_killed_at_any_step_the_next_call_makes_it_right(first: str, second: str) -> None:
    """Files and rows are as after an undisturbed migration, or to the byte as before it."""
    process = PROCESSES.Process(target=matrix, args=(first, second))  # the tests' own has threads: no fork
    process.start()
    process.join()
    assert process.exitcode == 0
