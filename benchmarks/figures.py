"""What was measured, as a report for programs and a page for people."""

import json
import math
import operator
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One line: ours, its peers', and the least or most that can be had at all, all of one run."""

    row: str
    unit: str
    ours: float
    peers: dict[str, float] = field(default_factory=dict)
    limit: float | None = None
    more_is_better: bool = True
    goal: str = ""
    note: str = ""
    size: int | None = None  # if a row is measured at several: how large this one was
    compares: bool = True  # a ratio of it means something

    @property
    def ratio_to_best_peer(self) -> float | None:
        """Ours to the best of the peers': above 1 is better where more is better."""
        if not self.peers or not self.compares:
            return None
        return self.ours / (max if self.more_is_better else min)(self.peers.values())

    @property
    def ratio_to_limit(self) -> float | None:
        """Ours to what can be had at all."""
        return None if self.limit is None or not self.compares else self.ours / self.limit

    def as_json(self, load: float) -> dict[str, Any]:
        """The figure for programs; *load* is the machine's, when it was taken."""
        return {
            "ours": self.ours,
            "unit": self.unit,
            "peers": self.peers,
            "limit": self.limit,
            "ratio_to_best_peer": self.ratio_to_best_peer,
            "ratio_to_limit": self.ratio_to_limit,
            "more_is_better": self.more_is_better,
            "goal": self.goal,
            "note": self.note,
            "size": self.size,
            "machine": {**machine(), "load": load},
        }


def machine() -> dict[str, Any]:
    """Where it was measured."""
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "commit": _commit(),
    }


@cache
def _commit() -> str:
    """The commit that was measured; empty outside a clone."""
    argv = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    found = subprocess.run(argv, cwd=Path(__file__).parent, capture_output=True, text=True, check=False, timeout=10)
    return found.stdout.strip()


def timed(work: Callable[[], object]) -> float:
    """Seconds that *work* takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turns(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The best seconds of each way, one after the other in each round: in that one it was disturbed least."""
    times = [{name: timed(way) for name, way in ways.items()} for _ in range(rounds)]
    return {name: min(one[name] for one in times) for name in ways}


def quantile(values: list[float], share: float) -> float:
    """The value below which *share* of the values are."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def growth(row: str, found: Sequence[Figure]) -> Figure:
    """How the figures of several sizes grow with it: the exponent, 0 for not at all, 1 for in proportion."""
    sizes = [math.log(one.size or 1) for one in found]

    def exponent(values: Sequence[float]) -> float:
        return statistics.linear_regression(sizes, [math.log(max(value, 1e-9)) for value in values]).slope

    limits = [one.limit for one in found if one.limit is not None]
    return Figure(
        row,
        "exponent of the size",
        exponent([one.ours for one in found]),
        {name: exponent([one.peers[name] for one in found]) for name in found[0].peers},
        exponent(limits) if len(limits) == len(found) else None,
        more_is_better=False,
        compares=False,
    )


def merge(path: Path, figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Put the *figures* into the report at *path*, and leave the other rows as they are; returns all of it."""
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for one in figures:
        report[one["row"]] = {name: value for name, value in one.items() if name != "row"}
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def number(value: float | None) -> str:
    """A figure for people: three digits that count."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def met(one: dict[str, Any]) -> bool | None:
    """Whether a figure of the report meets its goal, such as `<= 0.1`, `>= 8,000`, `<= 5 x du`; None without one."""
    if not one["goal"]:
        return None
    sign, wanted, *of = one["goal"].split(" ", 2)
    value, limit = one["ours"], float(wanted.replace(",", ""))
    if of:
        value = one["ratio_to_limit"] if one["ratio_to_limit"] is not None else one["ratio_to_best_peer"]
    return bool({"<": operator.lt, "<=": operator.le, ">=": operator.ge}[sign](value, limit))


def cells(row: str, one: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table."""
    peers = ", ".join(f"{name} {number(value)}" for name, value in one["peers"].items())
    ratios = (number(one["ratio_to_best_peer"]), number(one["limit"]), number(one["ratio_to_limit"]))
    return row, number(one["ours"]), one["unit"], peers, *ratios, one["goal"], f"{one['machine']['load']:.1f}"


COLUMNS = ("row", "ours", "unit", "peers", "to the best", "limit", "to the limit", "goal", "load")


def table(report: dict[str, Any]) -> Table:
    """The report on a terminal."""
    found = Table(*COLUMNS, title="measured beside its peers")
    for row, one in report.items():
        found.add_row(*cells(row, one))
    return found
