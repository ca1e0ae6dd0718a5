"""Measures what is promised beside its peers, and writes the report and the page.

python -m benchmarks [--quick] [--list] [ROW ...]
"""

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import redis
from rich.console import Console

from benchmarks import figures, page, plots
from benchmarks.figures import Figure
from benchmarks.stand import Stand
from lectern.errors import LecternError
from lectern.media.ffmpeg import executable
from lectern.playout.control_socket import PlayoutUnreachable, RequestRefused

ROOT = Path(__file__).resolve().parent.parent
NAMES = (
    "rekey",
    "cache",
    "scan",
    "report",
    "page",
    "download",
    "transcode",
    "playout",
    "governor",
    "forecast",
    "timetable",
    "lone",
    "lone_postgres",
    "http",
    "run_cost",
    "waiting",
    "storm",
    "storm_postgres",
    "filled",
    "teachers",
    "streamers",
)
MODULES = {"page": "day"}  # benchmarks.page writes the page of what was measured
ROWS = {name: importlib.import_module(f"benchmarks.{MODULES.get(name, name)}") for name in NAMES}
OURS = (LecternError, RequestRefused, PlayoutUnreachable)
FAILURES = (AssertionError, OSError, subprocess.SubprocessError, httpx.HTTPError, redis.RedisError, *OURS)


def run(rows: list[str], stand: Stand, failed: list[str]) -> Iterator[dict[str, object]]:
    """The figures of *rows*, as each is there; one that cannot be measured does not stop those behind it."""
    for name in rows:
        began = time.monotonic()
        stand.say(f"[bold]{name}[/bold]")
        measure: Callable[[Stand], Iterator[Figure]] = ROWS[name].measure
        try:
            for figure in measure(stand):
                yield {"row": figure.row, **figure.as_json(os.getloadavg()[0])}
        except FAILURES as error:
            failed.append(name)
            stand.say(f"[red]{name}: was not measured to its end[/red]: {type(error).__name__}: {error}")
        stand.say(f"{name}: took {time.monotonic() - began:.0f} s")


def _have_ffmpeg(folder: Path) -> None:
    """Let a machine without ffmpeg measure with the one of the Python packages: ours and the peers' alike."""
    if shutil.which("ffmpeg") is None:
        (folder / "ffmpeg").symlink_to(executable())
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def main() -> int:
    """Measure, print a table, write the report and the page."""
    parser = argparse.ArgumentParser(prog="make bench", description=main.__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="one round of each, and smaller ones: a few minutes")
    parser.add_argument("--report", type=Path, default=ROOT / "docs/benchmarks/bench-report.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "BENCHMARKS.md")
    given = parser.parse_args()
    if unknown := [name for name in given.rows if name not in ROWS]:
        parser.error(f"there is no row {unknown[0]!r}. Write one of: {', '.join(ROWS)}")
    console = Console()
    os.environ["LECTERN_BY_EXEC"] = "1"  # a fork shares memory with its parent, and has done its imports
    figures.machine()  # knows the commit from here on: the run's own report makes the clone differ from it
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        _have_ffmpeg(Path(folder))
        stand = Stand(Path(folder), console, quick=given.quick)
        if not given.rows:
            given.report.unlink(missing_ok=True)  # rows that are no more do not stay
        report, failed = figures.merge(given.report, []), list[str]()
        try:
            for figure in run(given.rows or list(ROWS), stand, failed):
                report = figures.merge(given.report, [figure])
        finally:
            stand.close()
    pictures = plots.draw(report, given.page.parent / "benchmarks")
    what = {name: row.WHAT for name, row in ROWS.items()}
    given.page.write_text(page.page(report, what, pictures), encoding="utf-8")
    Console(width=max(console.width, 160)).print(figures.table(report))
    if failed:
        console.print(f"Not measured to the end: {', '.join(failed)}; what was said of each is above.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
