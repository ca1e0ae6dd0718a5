"""The page of what was measured: first what a reader wants to know, then every row and how it was taken."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from benchmarks.figures import COLUMNS, cells, met, number

SUMMARY: Mapping[str, str] = MappingProxyType(
    {
        "lone, 1: p50": "Answer to a booking, one a second: half are quicker",
        "lone, 50: p99": "Answer to a booking, fifty a second: 99 of 100 are quicker",
        "lone, Prefect stopped, 10: p50": "Answer to a booking, ten a second, while Prefect is stopped",
        "storm, refused, 10,000": "Bookings refused in a storm",
        "storm, cached, 10,000": "Bookings of cached recordings accepted in a storm",
        "storm, cached, 10,000: view": "Until Prefect shows all of that storm",
        "waiting, 1,000": "Until 1,000 waiting classes are answered after their transcoding",
        "cache, 1,000,000: p99": "A place in a full cache of a million recordings: 99 of 100 are quicker",
        "scan, 100,000: all": "Start with 100,000 files in the cache",
        "download: answer": "A download, checked and indexed",
        "transcode": "A transcoding, checked and uploaded",
        "transcode, two at once": "Two resolutions of a recording at once",
        "rekey, 1,000,000": "Renaming a million Redis keys",
        "playout: first byte, worst": "Fifty classes at one second: the last one begins after",
        "playout: memory": "Memory of fifty classes on air",
        "playout: CPU": "Processor of a class on air, a minute",
        "playout, cut: gap, p95": "Gap after a cut connection: 95 of 100 are shorter",
        "playout, worker killed: longest gap": "Gap when the process that sends is killed",
        "page, 10,000 classes: p95": "The page of a day with 10,000 classes: 95 of 100 are quicker",
        "filled, lectern explain: time": "`lectern explain` with a year of classes in the tables",
        "report, 100,000 classes": "The report over a month of 100,000 classes",
    }
)
"""Rows for a reader who has a minute, in plain words."""

_ON_TWO_CORES = (
    "Teacher, streamer, Redis and what publishes and hears share two cores, and each booking crosses them four times."
    " Of 100,000 the tables grow to hundreds of thousands of rows meanwhile. With the streamer on a machine of its own"
    " it would be met. Since this run each booking is also an event of its class, which is kept and told, and what was"
    " decided about it is kept beside its message: in turns with the commit of this run, a storm of 5,000 is refused at"
    " 0.65 and accepted at 0.74 of its rate, and is shown after 1.4 of its time."
)
_VIEW = (
    "Showing begins when the answers are out, because they come first. Prefect, one process, then needs some 16 ms of a"
    " core for each of the 125 runs: for the run, its event and its tags. Fewer runs with more classes each would meet"
    " it, but Prefect takes no run of more than about 95 tags."
)

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "rekey": (
            "The limit renames, and does nothing else. Ours looks at each name, counts, and notes clashes. In larger"
            " slices it would be quicker, and others would wait for Redis for longer than 20 ms."
        ),
        "transcode, two at once": (
            "One job saves a download and a decoding; the two encodings share two cores in any case. With a core more"
            " it would be met."
        ),
        "storm, refused, 100,000": _ON_TWO_CORES,
        "storm, cached, 100,000": _ON_TWO_CORES,
        "storm, cached, 1,000": (
            "It is over in 0.3 s. The streamer begins when the teacher has decided all of it, and the teacher answers"
            " when the streamer has admitted it: one core waits for the other. In smaller batches they would overlap,"
            " and each booking of a longer storm would be dearer."
        ),
        "storm, cached, 10,000": _ON_TWO_CORES,
        "storm_postgres, cached": (
            "Teacher, streamer, Redis, Prefect and its PostgreSQL share two cores; beside Prefect on SQLite, in the"
            " same run, it is not slower. A third core would meet it."
        ),
        "filled, /metrics": (
            "An answer of some 12 ms varies by more than that: the row alone, again on the same commit, took 12.9 ms"
            " with full tables and 19.4 ms with empty ones."
        ),
        "storm_postgres, cached, 10,000: view": _VIEW,
        "storm_postgres, refused, 10,000: view": _VIEW,
    }
)
"""By the beginning of a row's name; the longest one that fits counts."""


def page(report: dict[str, Any], rows: dict[str, str], plots: dict[str, str]) -> str:
    """The report as a page; *rows* says what each row is, *plots* has the files of pictures by their titles."""
    lines = [
        "# Benchmarks",
        "",
        *_summary(report),
        "",
        *_not_met(report),
        "## All rows",
        "",
        "Made by `make bench`, which replaces it. `make bench QUICK=1` takes fewer and smaller rounds, and",
        "`make bench ROW=storm` one of the rows. All that a line compares is measured in one run, in turns, and the",
        "best of the rounds counts. *To the best* is ours to the best of the peers', *to the limit* is ours to what",
        "the machine gives to a bare loop or command. *Load* is the machine's load average after the row: other",
        "work on it shifts the figures, and hardly the ratios. Growth is the exponent over the sizes measured: 0 is",
        "not at all, 1 in proportion. [bench-report.json](benchmarks/bench-report.json) has the same for programs.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(cells(row, one)) + " |" for row, one in report.items()),
        "",
        *(line for title, file in plots.items() for line in (f"![{title}]({file})", "")),
        "## What was done",
        "",
        *(f"- **{name}**: {what}" for name, what in rows.items()),
        "",
    ]
    notes = [f"- {row}: {one['note']}" for row, one in report.items() if one["note"]]
    if notes:
        lines += ["## Notes", "", *notes, ""]
    machines = {json.dumps({k: v for k, v in one["machine"].items() if k != "load"}) for one in report.values()}
    for one in sorted(machines):
        found = json.loads(one)
        cores, memory = found["cores"], found["memory_gib"]
        what = f"{cores} cores, {memory} GiB, {found['system']}, Python {found['python']}"
        lines.append(f"Machine: {what}; commit {found.get('commit') or 'unknown'}.")
    return "\n".join(lines) + "\n"


def _summary(report: dict[str, Any]) -> list[str]:
    """What a reader wants to know first."""
    lines = [
        "What lectern does, beside the best program that was found for the same work in the same run. The limit is",
        "what the machine gives to a bare loop or command.",
        "",
        "| what | lectern | best peer | limit | goal |",
        "|---|---|---|---|---|",
    ]
    for row, what in SUMMARY.items():
        if (one := report.get(row)) is None:
            continue
        best = (max if one["more_is_better"] else min)(one["peers"].items(), key=lambda peer: peer[1], default=None)
        peer = "" if best is None else f"{number(best[1])} {one['unit']} ({best[0]})"
        limit = "" if one["limit"] is None else f"{number(one['limit'])} {one['unit']}"
        lines.append(f"| {what} | **{number(one['ours'])} {one['unit']}** | {peer} | {limit} | {one['goal']} |")
    return lines


def _not_met(report: dict[str, Any]) -> list[str]:
    """Each goal that was not met, by how much, and why."""
    short = {row: one for row, one in report.items() if met(one) is False}
    if not short:
        return []
    by_reason: dict[str, list[str]] = {}
    for row, one in short.items():
        said = f"- {row}: {number(one['ours'])} {one['unit']}; the goal is {one['goal']}."
        by_reason.setdefault(reason(row), []).append(said)
    lines = ["## Goals that are not met", ""]
    for why, rows in by_reason.items():
        lines += [*rows, "", *([why, ""] if why else [])]
    return lines


def reason(row: str) -> str:
    """Why *row* may miss its goal; empty if nobody has said."""
    fitting = [one for one in REASONS if row.startswith(one)]
    return REASONS[max(fitting, key=len)] if fitting else ""
