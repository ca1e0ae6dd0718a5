"""Fifty classes aired by the playout alone, beside fifty ffmpegs: first byte, memory, processor, cuts, kills."""

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.figures import Figure, quantile
from benchmarks.stand import Stand
from tests.playout.receiver import Receiver, Session, wait_until
from tests.playout.stage import Playout

WHAT = (
    "fifty classes of 0.7 Mbit/s have the same start, and are sent to a receiver on loopback that reads each chunk."
    " *First byte* is how far from its second the first sound or picture of a class arrived. *Memory* is what all"
    " processes have for themselves, with their part of what they share, and the journals; *CPU* is theirs amid the"
    " classes. Then ten connections are reset one after another, and the worker is killed three times: *gap* is"
    " from the last sound or picture before to the first one after. The peer is a shell loop at that second: `for …; do"
    " ffmpeg -re -i FILE -c copy -f flv URL & done`; for cuts, one that starts its ffmpeg again"
)
CLASSES = 50


@dataclass(frozen=True)
class Seen:
    """What fifty pushes did and used."""

    late_s: list[float]
    memory_mib: float
    cpu_s_a_class_minute: float


def measure(stand: Stand) -> Iterator[Figure]:
    """Ours, then the shell loop."""
    folder = stand.folder()
    window_s = 10 if stand.quick else 30
    path = _recording(folder / "a.flv", 120)
    with Receiver() as receiver, Playout(folder / "p") as playout:
        start = time.time() + 8
        for number in range(CLASSES):
            playout.air(f"c{number}", path, receiver.url(f"c{number}"), start=start, length_s=110)
        names = [f"c{number}" for number in range(CLASSES)]
        ours = _seen(receiver, names, start, window_s, psutil.Process(playout.process.pid))
        cuts = _cuts(receiver, names[:10])
        gaps = [_kill(receiver, playout, names) for _ in range(3)]
        sessions = sum(len(receiver.of(name)) for name in names) - len(cuts)
    with Receiver() as receiver:
        receiver.strict = False
        theirs = _shell(receiver, path, window_s)
        shell_cuts = _shell_cuts(receiver, path)
    rows = {
        "first byte, worst": ("s", max(ours.late_s), max(theirs.late_s), "<= 0.1"),
        "first byte, p50": ("s", quantile(ours.late_s, 0.5), quantile(theirs.late_s, 0.5), ""),
        "memory": ("MiB", ours.memory_mib, theirs.memory_mib, "<= 80"),
        "CPU": ("CPU s a class-minute", ours.cpu_s_a_class_minute, theirs.cpu_s_a_class_minute, "<= 0.15"),
        "gap after a cut, p95": ("s", quantile(cuts, 0.95), quantile(shell_cuts, 0.95), "<= 0.15"),
    }
    for what, (unit, one, other, goal) in rows.items():
        yield Figure(f"playout: {what}", unit, one, {"shell loop": other}, more_is_better=False, goal=goal)
    note = f"{sessions} sessions of {CLASSES} classes"
    yield Figure(
        "playout: gap of a killed worker, worst", "s", max(gaps), more_is_better=False, goal="<= 0.15", note=note
    )


def _recording(path: Path, seconds: int) -> Path:
    picture = ("-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25", "-f", "lavfi", "-i", "sine=sample_rate=44100")
    codecs = (
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-g",
        "50",
        "-b:v",
        "600k",
        "-maxrate",
        "700k",
        "-bufsize",
        "700k",
    )
    argv = ["ffmpeg", "-nostdin", "-v", "error", "-y", *picture, *codecs, "-pix_fmt", "yuv420p", "-c:a", "aac"]
    subprocess.run([*argv, "-t", str(seconds), "-f", "flv", str(path)], check=True, timeout=600)
    return path


def _seen(receiver: Receiver, names: list[str], start: float, window_s: float, process: psutil.Process) -> Seen:
    offset_s = time.time() - time.monotonic()
    wait_until(
        lambda: all(receiver.of(name) and receiver.of(name)[0].packets() for name in names),
        timeout_s=180,
        description="all classes on air",
    )
    time.sleep(3)
    before = _cpu_s(process)
    time.sleep(window_s)
    used_s = _cpu_s(process) - before
    memory = _memory_mib(process)
    firsts = [next(one.at for one in receiver.of(name)[0].media if one.kind != 18) for name in names]
    return Seen([at + offset_s - start for at in firsts], memory, used_s / len(names) / (window_s / 60))


def _shell(receiver: Receiver, path: Path, window_s: float) -> Seen:
    push = f"ffmpeg -nostdin -v error -re -i '{path}' -c copy -f flv {receiver.url('s')}$i"
    start = time.time()
    loop = subprocess.Popen(["sh", "-c", f"i=0; while [ $i -lt {CLASSES} ]; do {push} & i=$((i+1)); done; wait"])
    try:
        names = [f"s{number}" for number in range(CLASSES)]
        return _seen(receiver, names, start, window_s, psutil.Process(loop.pid))
    finally:
        for one in psutil.Process(loop.pid).children(recursive=True):
            one.kill()
        loop.wait()


def _cuts(receiver: Receiver, names: list[str]) -> list[float]:
    gaps = []
    for name in names:
        time.sleep(0.3)
        first = receiver.of(name)[-1]
        first.cut()
        wait_until(lambda name: len(receiver.of(name)) > 1 and _media(receiver.of(name)[-1]), name, description=name)
        gaps.append(_media(receiver.of(name)[-1])[0] - first.media[-1].at)
    return gaps


def _shell_cuts(receiver: Receiver, path: Path) -> list[float]:
    clock = f"$(($(date +%s) - {int(time.time())}))"
    push = f"ffmpeg -nostdin -v error -re -ss {clock} -i '{path}' -c copy -f flv {receiver.url('cut')}"
    loop = subprocess.Popen(["sh", "-c", f"while true; do {push} 2>/dev/null; done"])
    gaps = []
    try:
        for number in range(10):
            wait_until(
                lambda number: len(receiver.of("cut")) > number and _media(receiver.of("cut")[number]),
                number,
                timeout_s=60,
                description="the shell loop on air",
            )
            if number:
                before, after = receiver.of("cut")[number - 1 : number + 1]
                gaps.append(_media(after)[0] - before.media[-1].at)
            time.sleep(1)
            receiver.of("cut")[number].cut()
    finally:
        children = psutil.Process(loop.pid).children(recursive=True)
        loop.kill()
        for one in children:
            one.kill()
        loop.wait()
    return gaps


def _kill(receiver: Receiver, playout: Playout, names: list[str]) -> float:
    """Kill the worker; the longest gap of any class."""
    time.sleep(4)
    sessions = [receiver.of(name)[-1] for name in names]
    counts = [len(one.media) for one in sessions]
    os.kill(playout.worker(), signal.SIGKILL)
    time.sleep(4)
    longest = 0.0
    for session, count in zip(sessions, counts, strict=True):
        times = [one.at for one in session.media[max(0, count - 1) :]]
        longest = max(longest, *(after - before for before, after in itertools.pairwise(times)), 0.0)
    return longest


def _media(session: Session) -> list[float]:
    return [one.at for one in session.media if one.kind != 18]


def _memory_mib(process: psutil.Process) -> float:
    family = [process, *process.children(recursive=True)]
    journals = {}
    for file in Path(f"/proc/{process.pid}/fd").iterdir():
        if "lectern-journal" in str(file.readlink()):
            state = file.stat()
            journals[state.st_ino] = state.st_blocks * 512
    return float(sum(one.memory_full_info().pss for one in family) + sum(journals.values())) / 2**20


def _cpu_s(process: psutil.Process) -> float:
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        found = one.cpu_times()
        total += found.user + found.system
    return total
