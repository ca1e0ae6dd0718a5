"""``python -m town``: a whole day on this machine, and one table."""

import argparse
import asyncio
import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from town.day import Day, play, record
from town.platform import Platform
from town.stack import Stack, running
from town.table import Row, report

WIDE = 132
"""Width of the table in columns if the output is no terminal."""

console = Console(width=None if sys.stdout.isatty() else WIDE)


def main() -> int:
    """Run the demo; 0 only if every row is as it must be."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    parser.add_argument("--root", type=Path, default=Path(".demo"), help="where everything is kept; made anew")
    parser.add_argument("--report", type=Path, default=Path("demo-report.json"))
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        return asyncio.run(_demo(given.root.resolve(), given.report, keep=given.keep))
    return 130


async def _demo(root: Path, target: Path, *, keep: bool) -> int:
    began = time.monotonic()

    def say(what: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:5.1f} s[/dim]  {what}")

    async with running(root, say, meanwhile=record) as stack:
        say(f"the day begins; the Prefect UI is at {stack.ui_url}")
        rows = await _watch(stack)
        report(rows, target)
        good = sum(row.ok is True for row in rows)
        say(f"{good} of {len(rows)} rows are as they must be; {target} has them all")
        if keep:
            await _keep(stack)
    return 0 if good == len(rows) else 1


async def _watch(stack: Stack) -> list[Row]:
    async with Platform(stack.redis_url, stack.root / "received") as platform:
        day = Day(stack, platform)
        playing = asyncio.create_task(play(day))
        if console.is_terminal:
            with Live(_table(day.rows), console=console, refresh_per_second=4) as live:
                while not playing.done():
                    await asyncio.wait({playing}, timeout=0.25)
                    live.update(_table(day.rows))
        else:
            await _tell(day.rows, playing)
            console.print(_table(day.rows))
        try:
            playing.result()
        except* (OSError, RuntimeError, ValueError, LookupError) as group:  # a path that broke is a bad row
            for error in group.exceptions:
                day.rows.append(Row("-", "the demo itself", "no error", result="error", ok=False, why=repr(error)))
        return day.rows


async def _tell(rows: list[Row], playing: "asyncio.Task[None]") -> None:
    """Without a terminal: one line as each row is judged."""
    told: set[int] = set()
    while True:
        done = playing.done()
        for index, row in enumerate(rows):
            if row.ok is not None and index not in told:
                told.add(index)
                console.print(f"{'ok ' if row.ok else 'BAD'} {row.class_id}: {row.result} {row.code or ''} {row.why}")
        if done:
            return
        await asyncio.wait({playing}, timeout=0.5)


def _table(rows: list[Row]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("class", no_wrap=True)
    table.add_column("path, and what must be", ratio=1)
    for name in ("answer", "rendition"):
        table.add_column(name, no_wrap=True)
    for name in ("received", "late"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("", overflow="fold")
    for row in rows:
        mark = "[dim]…[/dim]" if row.ok is None else "[green]ok[/green]" if row.ok else f"[red]BAD[/red] {row.why}"
        table.add_row(
            row.class_id,
            f"{row.path}: [bold]{row.expected}[/bold]",
            row.result if row.code is None else f"{row.result} {row.code}",
            row.rendition,
            "" if row.received_s is None else f"{row.received_s} s",
            "" if row.late_s is None else f"{row.late_s} s",
            mark,
        )
    return table


def next_steps(ui_url: str, root: Path, environment: Mapping[str, str]) -> str:
    """Write the demo's settings to ``env`` below *root*; returns what to look at next."""
    file = root / "env"
    file.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(environment.items())))
    file.chmod(0o600)
    return f"""Everything runs on; Ctrl-C ends it. In another terminal, in this folder:

  . {os.path.relpath(file)}; PATH="$PWD/.venv/bin:$PATH"
  lectern status                 what is on air, what comes next, what waits
  lectern explain c-both-fail    a class that was refused: why, and what the platform should do
  lectern explain c-cut          a class that was cut, and went on at the clock's position
  lectern doctor                 what the host needs, a line each

The page: http://{environment["API_BIND"]}/   Prefect's UI: {ui_url}   Logs: {root}/logs"""


async def _keep(stack: Stack) -> None:
    stop = asyncio.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    console.print(next_steps(stack.ui_url, stack.root, stack.environment), soft_wrap=True, highlight=False)
    await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
