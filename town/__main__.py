"""``python -m town``: a whole day on this machine, and one table."""

import argparse
import asyncio
import contextlib
import json
import math
import os
import shlex
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
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
from town.waits import TELL_EVERY_S, GaveUp, Load, Waits

WIDE = 132
"""Width of the table in columns if the output is no terminal."""

STANDS_S = 600.0
"""Seconds for which the demo stands after its table if a person sits at the terminal, and did not say otherwise."""

console = Console(width=None if sys.stdout.isatty() else WIDE)


def main() -> int:
    """Run the demo; 0 only if every row is as it must be."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument(
        "--keep",
        action=argparse.BooleanOptionalAction,
        help="run on until Ctrl-C, or end after the table; at a terminal it stands for ten minutes by default",
    )
    parser.add_argument("--root", type=Path, default=Path(".demo"), help="where everything is kept; made anew")
    parser.add_argument("--report", type=Path, default=Path("demo-report.json"))
    given = parser.parse_args()
    status, waits = 130, Waits()
    try:
        with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
            status = asyncio.run(_demo(given.root.resolve(), given.report, stands_s(keep=given.keep), waits))
    except* (GaveUp, LecternError, OSError) as group:
        status = 1
        for why in _sentences(group):
            print(f"The demo cannot go on: {why}", file=sys.stderr)
        if group.subgroup(GaveUp) and (load := waits.load_since(0.0)).is_too_high:
            print(f"The machine may be too busy for it: {load}.", file=sys.stderr)
        if (logs := given.root / "logs").exists():
            print(f"The logs are in {logs}.", file=sys.stderr)
    return status


def stands_s(*, keep: bool | None) -> float:
    """Seconds for which the demo stands after its table: without end if it shall be kept, 0 if nobody looks at it."""
    if keep is not None:
        return math.inf if keep else 0.0
    return STANDS_S if sys.stdin.isatty() and sys.stdout.isatty() and not os.environ.get("CI") else 0.0


def _sentences(error: BaseException) -> Iterator[str]:
    """What the errors of a group say; a text that says nothing is no sentence, so the error's name stands for it."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _sentences(one)
    elif isinstance(error, OSError) and error.strerror:
        yield f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        yield str(error) or type(error).__name__


async def _demo(root: Path, target: Path, for_s: float, waits: Waits) -> int:
    began = time.monotonic()

    def say(what: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:5.1f} s[/dim]  {what}")

    rows: list[Row] = []
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(asyncio.create_task(waits.watch()).cancel)
        telling = await stack.enter_async_context(contextlib.AsyncExitStack())
        await telling.enter_async_context(_telling(waits, rows))
        town = await stack.enter_async_context(running(root, say, waits, meanwhile=record))
        platform = await stack.enter_async_context(Platform(town.redis_url, root / "received"))
        say(f"the day begins; the Prefect UI is at {town.ui_url}")
        day = Day(town, platform, rows)
        await play(day)
        if for_s:
            say("a long class for you to look at")
            await day.stay()
        await telling.aclose()
        report(rows, target)
        good = sum(row.ok is True for row in rows)
        say(f"{good} of {len(rows)} rows are as they must be; {target} has them all")
        if loads := [row.load for row in rows if row.load is not None]:
            say(blame(loads))
        if for_s:
            await _keep(day, for_s)
        else:
            say("to look around in it, with a class on air and room for your own: make demo KEEP=1")
    return 0 if good == len(rows) else 1


@contextlib.asynccontextmanager
async def _telling(waits: Waits, rows: list[Row]) -> AsyncIterator[None]:
    """Show the rows and what is waited for: in place on a terminal, otherwise line by line, with the table at last."""

    def shown() -> Group:
        table, bad = [_table(rows)] if rows else [], [_line(row) for row in rows if row.ok is False]
        return Group(*table, *bad, *(f"[dim]{escape(line)}[/dim]" for line in waits.lines()))

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
            console.print(_line(row))


def _line(row: Row) -> str:
    """What is to be said of a row that was judged; of one that is not good, also how busy the machine was."""
    mark = "[green]ok[/green] " if row.ok else "[red]BAD[/red]"
    why = row.why if row.load is None else f"{row.why}; {row.load}"
    return f"{mark} " + escape(f"{row.class_id}: {row.result} {row.code or ''} {why}")


def blame(loads: Sequence[Load]) -> str:
    """Whether the machine may be to blame for rows that are not good, by its *loads* while each was played."""
    if not (busy := sum(load.is_too_high for load in loads)):
        return "this machine was not too busy: look for the fault in the demo's logs"
    number = "all others" if busy == len(loads) else f"{busy} of the {len(loads)} others"
    return (
        f"this machine was too busy while {number} were played: that, and not lectern, may be why they failed. "
        "End what else runs on it, and type the same again"
    )


def _table(rows: list[Row]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("class", no_wrap=True)
    table.add_column("path, and what must be", ratio=1)
    for name in ("answer", "rendition"):
        table.add_column(name, no_wrap=True)
    for name in ("received", "late"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("", no_wrap=True)
    for row in rows:
        mark = "[dim]…[/dim]" if row.ok is None else "[green]ok[/green]" if row.ok else "[red]BAD[/red]"
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


def next_steps(ui_url: str, page_url: str, root: Path, environment: Mapping[str, str], for_s: float) -> str:
    """Write the demo's settings to ``env`` below *root*; returns what to look at next, with the page's address last."""
    file = root / "env"
    file.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(environment.items())))
    file.chmod(0o600)
    until = f"for {for_s / 60:.0f} minutes (make demo KEEP=1: until you end it)" if math.isfinite(for_s) else "on"
    return f"""Everything runs {until}; Ctrl-C ends it. Prefect's UI: {ui_url}   Logs: {root}/logs
In another terminal, in this folder:

  . {os.path.relpath(file)}; PATH="$PWD/.venv/bin:$PATH"
  lectern status                 what is on air, what comes next, what waits
  lectern explain c-now          the class that is on air
  lectern preview c-now          its page and its picture, and the URL that it is pushed to
  ffplay {os.path.relpath(root)}/received/c-now.1.flv    what the receiver, which plays nothing back, has of it
  lectern explain c-both-fail    a class that was refused: why, and what the platform should do
  lectern explain c-cut          a class that was cut, and went on at the clock's position
  lectern doctor                 what the host needs, a line each
  lectern book --example > booking.json; lectern book booking.json --wait

Open the page: {page_url}"""


async def _keep(day: Day, for_s: float) -> None:
    stop, stack = asyncio.Event(), day.stack
    stack.on_signals(stop.set)
    viewer = json.loads(await stack.lectern("viewer", "add", "demo", "--json"))
    environment = {**stack.environment, "LECTERN_EXAMPLE": json.dumps(day.example())}
    text = next_steps(stack.ui_url, viewer["url"], stack.root, environment, for_s)
    console.print(text, soft_wrap=True, highlight=False, markup=False)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), for_s if math.isfinite(for_s) else None)
    (stack.root / "env").unlink()


if __name__ == "__main__":
    sys.exit(main())
