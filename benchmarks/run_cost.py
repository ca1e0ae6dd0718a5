"""What the run of a lone booking costs, by Prefect's own clock, beside a run that does nothing."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import psutil

from benchmarks.figures import Figure, quantile
from benchmarks.stand import Stand
from tests.stage import Stage

WHAT = (
    "bookings come one by one, a second apart: some are refused at once, some find their rendition on the streamer,"
    " some are downloaded. Shown is the median time of a run of each flow, from its start to its end as Prefect has"
    " them, and the memory of the resident processes after it. The limit is an async flow that does nothing, called in"
    " a process of its own on the same Prefect server"
)
PAUSE_S = 1.0
EMPTY = """
import asyncio, json, sys, time
from prefect import flow
@flow(persist_result=False)
async def empty() -> None:
    pass
async def times(number):
    found = []
    for _ in range(number + 3):
        began = time.perf_counter()
        await empty()
        found.append(time.perf_counter() - began)
    return found[3:]
print(json.dumps(asyncio.run(times(int(sys.argv[1])))))
"""
HOSTS = {"booking": "teacher", "prepare": "streamer1", "download": "streamer1", "report": "teacher"}


def measure(stand: Stand) -> Iterator[Figure]:
    """A flow a line, then the memory of each process."""
    number = 5 if stand.quick else 20
    with stand.stage() as stage:
        stage.up("teacher", "streamer1")
        _book(stand, stage, number)
        empty = statistics.median(_empty(stand, number))
        for flow, who in HOSTS.items():
            runs = [run_s(one) for one in stage.runs(who, flow, limit=200) if one["end_time"]]
            assert runs, f"Prefect has no run of {flow}"
            note = f"of {len(runs)} runs; the longest took {max(runs):.3f} s"
            row, median = f"run cost, {flow}", statistics.median(runs)
            yield Figure(row, "s", median, limit=empty, more_is_better=False, note=note)
        for who in ("teacher", "streamer1"):
            process = psutil.Process(stage.residents[who].pid)
            mib, note = process.memory_info().rss / 2**20, f"{process.num_threads()} threads"
            yield Figure(f"run cost, memory of {who}", "MiB", mib, more_is_better=False, note=note)


def _book(stand: Stand, stage: Stage, number: int) -> None:
    """Lone bookings of each kind."""
    record = stage.town.record()
    kinds: dict[str, Callable[[], dict[str, Any]]] = {
        "refused": lambda: stage.booking(record, starts_in_s=-60, length_s=1),
        "cached": lambda: stage.booking(record, starts_in_s=90_000),
        "downloaded": lambda: stage.booking(stage.town.record(), starts_in_s=90_000),
    }
    stage.answer(stage.book(kinds["cached"]()), timeout_s=120)
    for kind, booking in kinds.items():
        waits = []
        for _ in range(number):
            began = time.time()
            waits.append(float(stage.answer(stage.book(booking()), timeout_s=120)["received_at"]) - began)
            time.sleep(PAUSE_S)  # lone: what follows the answer is over
        stand.say(f"run cost, {kind}: answered after {quantile(waits, 0.5):.3f} s (median of {number})")


def run_s(run: dict[str, Any]) -> float:
    """How long a run took; of one that was shown afterwards the true times are in its labels."""
    labels = run.get("labels") or {}
    times = (labels.get("lectern.began", run["start_time"]), labels.get("lectern.ended", run["end_time"]))
    begun, ended = (datetime.fromisoformat(one) for one in times)
    return (ended - begun).total_seconds()


def _empty(stand: Stand, number: int) -> list[float]:
    """Seconds of runs of a flow that does nothing."""
    environment = {**stand.town.environment, "PREFECT_API_URL": str(stand.town.api.base_url).rstrip("/")}
    argv = [sys.executable, "-c", EMPTY, str(number)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120 + 10 * number, check=True)
    found: list[float] = json.loads(done.stdout)
    return found
