"""Fifty classes on air, beside fifty ffmpegs: first byte, memory, processor, cuts; and whatever is killed of ours."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from benchmarks import on_air
from benchmarks.figures import Figure, quantile
from benchmarks.on_air import WHO, Seen, Source
from benchmarks.receiver import Receiver
from benchmarks.stand import Stand
from lectern.playout.control_socket import Client, PlayoutUnreachable
from tests.stage import Stage, wait_until

WHAT = (
    "fifty booked classes of 1.5 Mbit/s have the same start, and are aired to a receiver on loopback that parses each"
    " chunk. *First byte* is how far from its second the first sound or picture of a class arrived. *Memory* is what"
    " the playout's processes have for themselves, with their part of what they share, and the journals; *CPU* is"
    " theirs amid the classes. Then processes are killed, or replaced by an upgrade, again and again: *gap* is the"
    " longest time without a packet of any class, and a new session or a packet that is not the recording's next one"
    " is counted. The holder is started again at once, as systemd does. Then connections are reset one after another:"
    " *gap* is from the last packet before to the first one after, *position* how far the first picture after is from"
    " where the clock says. At last two hundred classes have the same start. The peer is a shell loop at that second:"
    " `for …; do ffmpeg -re -i FILE -c copy -f flv URL & done`; for cuts, `while …; do ffmpeg -re -ss $(($(date +%s)"
    " - START)) -i FILE …; done`"
)
CLASSES, MANY = 50, 200
LENGTH_S = 1800
SETTLE_S = 3.0
LEASED_S = 30.0
"""A resident that has the lease renewed leaves more of its 45 s than this."""


def measure(stand: Stand) -> Iterator[Figure]:
    """The shell loop, then ours; of cuts, ours first."""
    times, holders, cuts = (2, 1, 4) if stand.quick else (10, 3, 20)
    window_s = 10 if stand.quick else 30
    with stand.stage(BROADCAST_LEAD_S="20") as stage, Receiver() as receiver:
        stage.up("teacher", WHO)
        record = stage.town.record()
        source = Source(on_air.recording(stage, record, LENGTH_S))
        theirs = _shell(receiver, source, window_s)
        on_air.book(stage, receiver, record, 1, time.time() + 90_000, 60)  # the recording is there when classes come
        start = time.time() + 60
        names = on_air.book(stage, receiver, record, CLASSES, start, LENGTH_S - 60)
        yield from _beside(on_air.watch(receiver, names, start, window_s, _playout(stage)), theirs)
        yield from _killed(Struck(stage, receiver, names), source, times)
        yield from _holder(stage, receiver, names, holders)
        ours = [_cut(receiver, names, source, start, number) for number in range(cuts)]
        for name in names:
            stage.cancel(name)
        yield from _cuts(ours, _shell_cuts(receiver, source, cuts))
        start = time.time() + 60
        names = on_air.book(stage, receiver, record, MANY, start, 180)
        yield from _many(on_air.watch(receiver, names, start, window_s, _playout(stage)))


def _playout(stage: Stage) -> psutil.Process:
    return psutil.Process(stage.playouts[WHO].pid)


def _many(seen: Seen) -> Iterator[Figure]:
    what = f"playout, {MANY} classes"
    yield Figure(f"{what}: first byte, worst", "s", max(seen.late_s), more_is_better=False, goal="<= 0.2")
    yield Figure(f"{what}: memory", "MiB", seen.memory_mib, more_is_better=False)
    yield Figure(f"{what}: CPU", _CPU, seen.cpu_s_a_class_minute, more_is_better=False)


_CPU = "CPU s a class-minute"


def _beside(ours: Seen, theirs: Seen) -> Iterator[Figure]:
    rows = {
        "first byte, worst": ("s", max(ours.late_s), max(theirs.late_s), "<= 0.1"),
        "first byte, p50": ("s", quantile(ours.late_s, 0.5), quantile(theirs.late_s, 0.5), ""),
        "memory": ("MiB", ours.memory_mib, theirs.memory_mib, "<= 80"),
        "CPU": (_CPU, ours.cpu_s_a_class_minute, theirs.cpu_s_a_class_minute, "<= 0.15"),
    }
    for what, (unit, one, other, goal) in rows.items():
        yield Figure(f"playout: {what}", unit, one, {"shell loop": other}, more_is_better=False, goal=goal)


class Struck:
    """The ways in which something of a streamer ends while its classes are on air."""

    def __init__(self, stage: Stage, receiver: Receiver, names: list[str]) -> None:
        self.receiver, self.names = receiver, names
        self._stage = stage

    def ways(self) -> dict[str, tuple[Callable[[], None], float]]:
        """Each with its goal for the longest gap, in seconds."""
        return {
            "resident killed": (lambda: self._resident(self._stage.residents[WHO].kill), 0.1),
            "resident upgraded": (lambda: self._resident(self._stage.residents[WHO].end), 0.1),
            "worker killed": (self._kill_worker, 0.15),
            "worker upgraded": (self._upgrade_worker, 0.15),
        }

    def _resident(self, end: Callable[[], object]) -> None:
        end()
        self._stage.serve(WHO).wait_for("started!")

        def is_leased() -> bool:
            seen = self._stage.playing(WHO)
            return bool(seen["lease_until"] - seen["boot_now"] > LEASED_S)

        wait_until(is_leased, timeout_s=60, pause_s=0.5, description="the lease is renewed")

    def _kill_worker(self) -> None:
        worker = self._worker()
        os.kill(worker, signal.SIGKILL)
        self._until_another(worker)

    def _upgrade_worker(self) -> None:
        worker = self._worker()
        with suppress(PlayoutUnreachable):  # the worker that is asked ends before it answers
            asyncio.run(self._ask_upgrade())
        self._until_another(worker)

    async def _ask_upgrade(self) -> None:
        async with await Client.connect(Path(self._stage.environment(WHO)["PLAYOUT_SOCKET"])) as client:
            await client.ask("upgrade", timeout_s=30)

    def _worker(self) -> int:
        return int(self._stage.playing(WHO)["pid"])

    def _until_another(self, worker: int) -> None:
        def is_there() -> bool:
            with suppress(PlayoutUnreachable):
                return self._worker() != worker
            return False

        wait_until(is_there, timeout_s=30, pause_s=0.1, description="another worker")


def _killed(struck: Struck, source: Source, times: int) -> Iterator[Figure]:
    for what, (strike, goal_s) in struck.ways().items():
        before = _sessions(struck)
        worst = max(max(on_air.gaps(struck.receiver, struck.names, strike, SETTLE_S)) for _ in range(times))
        row, goal, note = f"playout, {what}", f"<= {goal_s:g}", f"{times} times"
        yield Figure(f"{row}: longest gap", "s", worst, more_is_better=False, goal=goal, note=note)
        new = _sessions(struck) - before
        yield Figure(f"{row}: new sessions", "sessions", new, more_is_better=False, goal="<= 0", note=note)
    wrong = sum(not source.is_exact(struck.receiver.of(name)[0]) for name in struck.names)
    yield Figure(
        "playout, after all of these: classes with a packet that is not the recording's next",
        "classes",
        wrong,
        more_is_better=False,
        goal="<= 0",
    )


def _sessions(struck: Struck) -> int:
    return sum(len(struck.receiver.counts()[name]) for name in struck.names)


def _holder(stage: Stage, receiver: Receiver, names: list[str], times: int) -> Iterator[Figure]:
    def strike() -> None:
        sessions = {name: len(found) + 1 for name, found in receiver.counts().items()}
        stage.playouts[WHO].kill()
        stage.play(WHO)
        on_air.until_on_air(receiver, names, sessions, timeout_s=60)

    worst = max(max(on_air.gaps(receiver, names, strike, SETTLE_S)) for _ in range(times))
    note = f"{times} times"
    yield Figure("playout, holder killed: longest gap", "s", worst, more_is_better=False, goal="<= 1.5", note=note)


def _cut(receiver: Receiver, names: list[str], source: Source, start: float, number: int) -> tuple[float, float]:
    """Each time another class, at another distance from a keyframe."""
    time.sleep(0.5 + number * 0.37 % 2)
    return on_air.cut(receiver, names[number % len(names)], source, start)


def _cuts(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> Iterator[Figure]:
    for what, at, goal in (("gap", 0, "<= 0.15"), ("position", 1, "<= 0.05")):
        for share, of in (("p50", 0.5), ("p95", 0.95)):
            one, other = (quantile([each[at] for each in found], of) for found in (ours, theirs))
            row, shown = f"playout, cut: {what}, {share}", goal if share == "p95" else ""
            note = f"{len(ours)} cuts"
            yield Figure(row, "s", one, {"shell loop": other}, more_is_better=False, goal=shown, note=note)


def _shell(receiver: Receiver, source: Source, window_s: float) -> Seen:
    push = f"ffmpeg -nostdin -v error -re -i '{source.path}' -c copy -f flv {receiver.url('s')}$i"
    names, start = [f"s{number}" for number in range(CLASSES)], time.time()
    with _sh(f"i=0; while [ $i -lt {CLASSES} ]; do {push} & i=$((i+1)); done; wait") as loop:
        return on_air.watch(receiver, names, start, window_s, loop)


def _shell_cuts(receiver: Receiver, source: Source, times: int) -> list[tuple[float, float]]:
    start = int(time.time()) - 10
    clock, url = f"$(($(date +%s) - {start}))", receiver.url("cut")
    push = f"ffmpeg -nostdin -v error -re -ss {clock} -i '{source.path}' -c copy -f flv {url} 2>/dev/null"
    found = []
    with _sh(f"while true; do {push}; done"):
        on_air.until_on_air(receiver, ["cut"], {"cut": 1})
        for number in range(times):
            time.sleep(2.5 + number * 0.37 % 2)
            found.append(on_air.cut(receiver, "cut", source, start))
    return found


@contextmanager
def _sh(script: str) -> Iterator[psutil.Process]:
    """A shell that runs *script*; at the end it and its children are killed."""
    loop = subprocess.Popen(["sh", "-c", script])
    try:
        yield psutil.Process(loop.pid)
    finally:
        children = psutil.Process(loop.pid).children(recursive=True)
        loop.kill()
        for one in children:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        loop.wait()
