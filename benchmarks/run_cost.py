"""What one booking costs in the resident process: answer to a lone booking, and the run's time by Prefect's own clock.

    .venv/bin/python benchmarks/run_cost.py [number of bookings]

Starts Redis, a Prefect server on SQLite, a teacher and a streamer of its own, on loopback; run it on an idle machine.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.stage import Stage, Town, staged

WARM_UP = 3
PAUSE_S = 1.0


def answer_s(stage: Stage, booking: dict[str, Any]) -> float:
    """Seconds from a booking's PUBLISH to its answer, heard on the channel."""
    began = time.time()
    answer = stage.answer(stage.book(booking))
    time.sleep(PAUSE_S)  # lone: what follows the answer is over
    return float(answer["received_at"]) - began


def run_s(run: dict[str, Any]) -> float:
    """How long a run took, from its start to its end."""
    begun, ended = (datetime.fromisoformat(run[name]) for name in ("start_time", "end_time"))
    return (ended - begun).total_seconds()


def quantile(values: list[float], share: float) -> float:
    """The value below which *share* of the values are."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def measure(stage: Stage, number: int) -> dict[str, list[float]]:
    """Latencies of lone bookings, each of a kind, and the durations of the runs behind them."""
    record = stage.town.record()
    kinds: dict[str, Callable[[], dict[str, Any]]] = {
        "refused at once (one run)": lambda: stage.booking(record, starts_in_s=-60, length_s=1),
        "cached on the streamer (three runs)": lambda: stage.booking(record, starts_in_s=90_000),
        "to be downloaded (four runs)": lambda: stage.booking(stage.town.record(), starts_in_s=90_000),
    }
    found: dict[str, list[float]] = {}
    for name, booking in kinds.items():
        for _ in range(WARM_UP):
            answer_s(stage, booking())
        found[f"answer, {name}"] = [answer_s(stage, booking()) for _ in range(number)]
    hosts = {"booking": "teacher", "prepare": "streamer1", "download": "streamer1", "report": "teacher"}
    for flow, who in hosts.items():
        runs = [one for one in stage.runs(who, flow, limit=200) if one["end_time"]]
        found[f"run of {flow}"] = [run_s(one) for one in runs]
    return found


def main() -> None:
    """Measure, and print a table."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    table = Table("what", "n", "p50 s", "p99 s", "mean s", title="cost of a lone booking")
    with tempfile.TemporaryDirectory() as folder:
        town = Town(Path(folder) / "town")
        home = Path(folder) / "stage"
        home.mkdir()
        try:
            town.start()
            with staged(town, home, BROADCAST_LEAD_S="300") as stage:
                stage.up("teacher", "streamer1")
                for name, values in measure(stage, number).items():
                    p50, p99, mean = quantile(values, 0.5), quantile(values, 0.99), statistics.fmean(values)
                    table.add_row(name, str(len(values)), f"{p50:.3f}", f"{p99:.3f}", f"{mean:.3f}")
                for who in ("teacher", "streamer1"):
                    process = psutil.Process(stage.residents[who].pid)
                    rss, threads = process.memory_info().rss / 1024**2, process.num_threads()
                    table.add_row(f"{who}: {rss:.0f} MiB, {threads} threads", "", "", "", "")
        finally:
            town.stop()
    Console().print(table)


if __name__ == "__main__":
    main()
