"""``python -m town``: a whole day on this machine, and one table."""

import argparse
import asyncio
import contextlib
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from lectern.errors import LecternError
from town.day import Day, play, record
from town.platform import Platform
from town.stack import running
from town.table import Row, report
from town.waits import TELL_EVERY_S, GaveUp, Waits

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
    status = 130
    try:
        with contextlib.suppress(KeyboardInterrupt):
            status = asyncio.run(_demo(given.root.resolve(), given.report, keep=given.keep))
    except* (GaveUp, LecternError, OSError) as group:
        status = 1
        for why in _sentences(group):
            print(f"The demo cannot go on: {why}\nThe logs are in {given.root}/logs.", file=sys.stderr)
    return status


def _sentences(error: BaseException) -> Iterator[str]:
    """What the errors of a group say; a text that says nothing is no sentence, so the error's name stands for it."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _sentences(one)
    else:
        yield str(error) or type(error).__name__


async def _demo(root: Path, target: Path, *, keep: bool) -> int:
    began = time.monotonic()

    def say(what: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:5.1f} s[/dim]  {what}")

    waits, rows = Waits(), list[Row]()
    async with contextlib.AsyncExitStack() as stack:
        telling = await stack.enter_async_context(contextlib.AsyncExitStack())
        await telling.enter_async_context(_telling(waits, rows))
        town = await stack.enter_async_context(running(root, say, waits, meanwhile=record))
        platform = await stack.enter_async_context(Platform(town.redis_url, root / "received"))
        say(f"the day begins; the Prefect UI is at {town.ui_url}")
        day = Day(town, platform, rows)
        await play(day)
        if keep:
            say("a long class for you to look at")
            await day.stay()
        await telling.aclose()
        report(rows, target)
        good = sum(row.ok is True for row in rows)
        say(f"{good} of {len(rows)} rows are as they must be; {target} has them all")
        if keep:
            await _keep(day)
    return 0 if good == len(rows) else 1


@contextlib.asynccontextmanager
async def _telling(waits: Waits, rows: list[Row]) -> AsyncIterator[None]:
    """Show the rows and what is waited for: in place on a terminal, otherwise line by line, with the table at last."""

    def shown() -> Group:
        return Group(*([_table(rows)] if rows else []), *(f"[dim]{escape(line)}[/dim]" for line in waits.lines()))

    if console.is_terminal:
        with Live(get_renderable=shown, console=console, refresh_per_second=4):
            yield
        return
    told: set[int] = set()
    telling = asyncio.create_task(_tell(waits, rows, told))
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.wait({telling})
        _tell_rows(rows, told)
        console.print(shown())


async def _tell(waits: Waits, rows: list[Row], told: set[int]) -> None:
    """Without a terminal: a line as each row is judged, and each quarter of a minute one for each wait."""
    while True:
        for _ in range(int(TELL_EVERY_S)):
            await asyncio.sleep(1.0)
            _tell_rows(rows, told)
        for line in waits.lines():
            console.print(escape(line), highlight=False)


def _tell_rows(rows: list[Row], told: set[int]) -> None:
    for index, row in enumerate(rows):
        if row.ok is not None and index not in told:
            told.add(index)
            said = f"{'ok ' if row.ok else 'BAD'} {row.class_id}: {row.result} {row.code or ''} {row.why}"
            console.print(escape(said))


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
        mark = (
            "[dim]…[/dim]" if row.ok is None else "[green]ok[/green]" if row.ok else f"[red]BAD[/red] {escape(row.why)}"
        )
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


def next_steps(ui_url: str, page_url: str, root: Path, environment: Mapping[str, str]) -> str:
    """Write the demo's settings to ``env`` below *root*; returns what to look at next."""
    file = root / "env"
    file.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(environment.items())))
    file.chmod(0o600)
    return f"""Everything runs on; Ctrl-C ends it. Open the page: {page_url}
Prefect's UI: {ui_url}   Logs: {root}/logs
In another terminal, in this folder:

  . {os.path.relpath(file)}; PATH="$PWD/.venv/bin:$PATH"
  lectern status                 what is on air, what comes next, what waits
  lectern explain c-now          the class that is on air
  lectern explain c-both-fail    a class that was refused: why, and what the platform should do
  lectern explain c-cut          a class that was cut, and went on at the clock's position
  lectern doctor                 what the host needs, a line each
  lectern book --example > booking.json; lectern book booking.json --wait"""


async def _keep(day: Day) -> None:
    stop = asyncio.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    stack = day.stack
    viewer = json.loads(await stack.lectern("viewer", "add", "demo", "--json"))
    environment = {**stack.environment, "LECTERN_EXAMPLE": json.dumps(day.example())}
    console.print(next_steps(stack.ui_url, viewer["url"], stack.root, environment), soft_wrap=True, highlight=False)
    await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
