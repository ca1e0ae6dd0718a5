"""A push that is cut again and again: how long nothing comes, and how far off the clock it goes on."""

import itertools
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from benchmarks.figures import Figure, quantile
from benchmarks.stand import Stand
from tests.stage import Child, Gate, Stage, ffmpegs_of, wait_until
from town.ports import HOST

WHAT = (
    "a class is on air, and is cut at changing distances from its key pictures, which are 2 s apart: every other time"
    " its ffmpeg is killed, or all its connections are cut. *Gap* is from the last sound or picture that the receiver"
    " got before to the first one after; *position* is how far the first picture after is from where the clock says"
    " the class should be. The peer is a shell loop that waits for nothing: `while …; do ffmpeg -re -ss $(($(date"
    " +%s) - START)) -i FILE -c copy -f flv URL; done`"
)
A_CUT_S = 8.0
"""Room that a class has for each cut; it is cancelled after the last one."""


@dataclass
class Cuts:
    """One entry a cut, in seconds."""

    gaps: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)


def measure(stand: Stand) -> Iterator[Figure]:
    """Ours, then the shell loop."""
    number = 6 if stand.quick else 20
    length_s = int(30 + number * A_CUT_S)
    with stand.stage(BROADCAST_LEAD_S="5") as stage:
        stage.up("teacher", "streamer1")
        record = stage.town.record(seconds=length_s)
        gate = Gate(stage.town.receiver.port)
        stage.town.background.run(gate.start())
        try:
            ours = _ours(stage, gate, record, number, length_s)
            shell = _shell(stage, gate, record, number, length_s)
        finally:
            stage.town.background.run(gate.stop())
    note = f"{number} cuts"
    for name, cuts in (("ours", ours), ("shell loop", shell)):
        stand.say(f"cuts, {name}: gaps {_said(cuts.gaps)}; position {_said(cuts.errors)}")
    for what, goal in (("gap", "<= 3"), ("position", "<= 1")):
        for share, at in (("p50", 0.5), ("p95", 0.95)):
            one, other = (quantile(each.gaps if what == "gap" else each.errors, at) for each in (ours, shell))
            row, shown = f"cuts, {what}: {share}", goal if share == "p95" else ""
            yield Figure(row, "s", one, {"shell loop": other}, more_is_better=False, goal=shown, note=note)


def _said(values: list[float]) -> str:
    return f"{quantile(values, 0.5):.2f} s, worst {max(values):.2f} s"


def _ours(stage: Stage, gate: Gate, record: int, number: int, length_s: float) -> Cuts:
    booking = stage.booking(record, starts_in_s=20, length_s=length_s)
    booking["push_url"] = f"rtmp://{HOST}:{gate.port}/live/{booking['class_id']}"
    class_id = stage.book(booking)
    assert stage.answer(class_id, timeout_s=120)["result"] == "success"
    _cut(stage, gate, class_id, number)
    stage.cancel(class_id)
    return _found(stage, class_id, record, booking["start_time"])


def _shell(stage: Stage, gate: Gate, record: int, number: int, length_s: float) -> Cuts:
    name = f"{stage.prefix}-shell"
    source = stage.town.origin.root / str(record) / f"{record}.flv"
    start = int(time.time()) + 1
    clock, url = f"$(($(date +%s) - {start}))", f"rtmp://{HOST}:{gate.port}/live/{name}"
    push = f"{stage.town.programs.ffmpeg} -nostdin -v error -re -ss {clock} -i '{source}' -c copy -f flv {url}"
    time.sleep(max(0.0, start - time.time()))
    script = f"while [ {clock} -lt {int(length_s)} ]; do {push}; done"
    loop = Child(["sh", "-c", script], stage.town.environment, stage.folder / "shell.log")
    try:
        _cut(stage, gate, name, number)
    finally:
        os.killpg(loop.pid, signal.SIGKILL)  # the loop, and the ffmpeg that it waits for
        loop.kill()
    return _found(stage, name, record, start)


def _cut(stage: Stage, gate: Gate, name: str, number: int) -> None:
    """Cut what is pushed as *name*, each time when it has been on air for a while."""
    for i in range(number):
        _on_air(stage, name, i + 1)
        time.sleep(2.5 + (i * 0.37) % 2)
        if i % 2 or not ffmpegs_of(f"/live/{name}"):
            stage.town.background.run(gate.stop())
            stage.town.background.run(gate.start())
        else:
            _kill_ffmpeg(name)
    _on_air(stage, name, number + 1)
    time.sleep(2.5)  # until a key picture of the last push is there


def _kill_ffmpeg(name: str) -> None:
    for pid in ffmpegs_of(f"/live/{name}"):
        with suppress(psutil.NoSuchProcess):
            if "ffmpeg" in (process := psutil.Process(pid)).name():  # not the shell that has it in its script
                process.kill()


def _on_air(stage: Stage, name: str, pushes: int) -> None:
    def seen() -> bool:
        return sum(one.first_media_at is not None for one in stage.pushes(name)) >= pushes

    wait_until(seen, timeout_s=60, description=f"{name} is on air for time {pushes}")


def _found(stage: Stage, name: str, record: int, start: float) -> Cuts:
    """What the receiver got, cut by cut."""
    found = Cuts()
    pushes = [one for one in stage.off_air(name) if one.first_media_at is not None]
    for before, after in itertools.pairwise(pushes):
        assert before.last_media_at is not None
        assert after.first_media_at is not None
        found.gaps.append(after.first_media_at - before.last_media_at)
        found.errors.append(abs(stage.position_s(record, after) - (after.first_media_at - start)))
    return found
