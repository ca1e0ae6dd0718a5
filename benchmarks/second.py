"""Fifty classes that begin in the same second: how late each is, and what they use."""

import resource
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.figures import Figure, quantile
from benchmarks.stand import Stand
from tests.stage import Stage, wait_until
from town.recordings import Publish

WHAT = (
    "fifty classes have the same start, and are pushed to an RTMP receiver on loopback from files of their own names."
    " *First byte* is how far from its second the first sound or picture of a class arrived. *Memory* is what all"
    " processes of the pushes have for themselves, with their part of what they share, in the middle of the classes;"
    " *CPU* is theirs from before the start to the end. The peer is a shell loop at that second: `for …; do ffmpeg"
    " -re -i FILE -c copy -f flv URL & done`"
)
CLASSES = 50
GOAL_S, GOAL_MIB = "<= 0.5", "<= 250"


@dataclass(frozen=True)
class Seen:
    """What fifty pushes did and used."""

    late_s: list[float]
    memory_mib: float
    cpu_s: float


def measure(stand: Stand) -> Iterator[Figure]:
    """Ours, then the shell loop."""
    length_s, ahead_s = (10, 60.0) if stand.quick else (25, 150.0)
    with stand.stage(BROADCAST_LEAD_S=f"{ahead_s / 2:g}") as stage:
        stage.up("teacher", "streamer1")
        record = stage.town.record()
        streamer = psutil.Process(stage.residents["streamer1"].pid)
        ours = _ours(stage, record, length_s, ahead_s, streamer)
        resident_mib = streamer.memory_info().rss / 2**20
        bare = _bare(stage, stage.town.origin.root / str(record) / f"{record}.flv", length_s)
    for name, seen in (("ours", ours), ("shell loop", bare)):
        late = f"{quantile(seen.late_s, 0.5):.3f} s, worst {max(seen.late_s):.3f} s"
        stand.say(f"second, {name}: first byte {late}; {seen.memory_mib:.0f} MiB, {seen.cpu_s:.1f} CPU s")
    figures = {
        "first byte, worst": ("s", max(ours.late_s), max(bare.late_s), GOAL_S),
        "first byte, p95": ("s", quantile(ours.late_s, 0.95), quantile(bare.late_s, 0.95), ""),
        "first byte, p50": ("s", quantile(ours.late_s, 0.5), quantile(bare.late_s, 0.5), ""),
        "memory": ("MiB", ours.memory_mib, bare.memory_mib, ""),
        "CPU": ("CPU s", ours.cpu_s, bare.cpu_s, ""),
    }
    for what, (unit, one, other, goal) in figures.items():
        yield Figure(f"second: {what}", unit, one, {"shell loop": other}, more_is_better=False, goal=goal)
    yield Figure("second: resident process", "MiB", resident_mib, more_is_better=False, goal=GOAL_MIB)


def _ours(stage: Stage, record: int, length_s: float, ahead_s: float, streamer: psutil.Process) -> Seen:
    first = stage.booking(record, starts_in_s=90_000)
    assert stage.answer(stage.book(first), timeout_s=120)["result"] == "success"
    start = time.time() + ahead_s
    times = {"start_time": start, "end_time": start + length_s}
    class_ids = [stage.book({**stage.booking(record), **times}) for _ in range(CLASSES)]
    for class_id in class_ids:
        assert stage.answer(class_id, timeout_s=ahead_s)["result"] == "success"
    time.sleep(max(0.0, start - 1 - time.time()))
    before = _cpu_s(streamer)
    time.sleep(max(0.0, start + length_s / 2 - time.time()))
    memory = _memory_mib(streamer)
    pushes = _over(stage, class_ids)
    wait_until(lambda: not _pushing(streamer), timeout_s=60, description="its ffmpegs have ended")
    return Seen(_late_s(pushes, start), memory, _cpu_s(streamer) - before)


def _bare(stage: Stage, source: Path, length_s: float) -> Seen:
    names = [f"{stage.prefix}-bare-{i}" for i in range(CLASSES)]
    url = stage.town.receiver.url(f"{stage.prefix}-bare-")
    push = f"{stage.town.programs.ffmpeg} -nostdin -v error -re -i '{source}' -t {length_s} -c copy -f flv {url}$i"
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    loop = subprocess.Popen(["sh", "-c", f"i=0; while [ $i -lt {CLASSES} ]; do {push} & i=$((i+1)); done; wait"])
    time.sleep(length_s / 2)
    memory = _memory_mib(psutil.Process(loop.pid))
    loop.wait(length_s + 60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    pushes = _over(stage, names)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Seen(_late_s(pushes, start), memory, used)


def _over(stage: Stage, names: Sequence[str]) -> list[Publish]:
    """The first push of each, when all are over."""
    return [stage.off_air(name, timeout_s=120)[0] for name in names]


def _late_s(pushes: Sequence[Publish], start: float) -> list[float]:
    assert all(one.first_media_at is not None for one in pushes), "a push sent nothing"
    return [abs((one.first_media_at or start) - start) for one in pushes]


def _memory_mib(process: psutil.Process) -> float:
    family = [process, *process.children(recursive=True)]
    return float(sum(one.memory_full_info().pss for one in family)) / 2**20


def _cpu_s(process: psutil.Process) -> float:
    """Of a process, and of its children that have ended."""
    found = process.cpu_times()
    return float(found.user + found.system + found.children_user + found.children_system)


def _pushing(process: psutil.Process) -> list[psutil.Process]:
    return [one for one in process.children(recursive=True) if "ffmpeg" in one.name()]
