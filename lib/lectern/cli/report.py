"""``lectern report``: what was planned and what was really sent, class by class, and the sums by institution."""

import sys
import time
from contextlib import suppress
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from typing import Annotated

import typer

from flows.as_run_report import Format, made, written
from lectern.cli import readers
from lectern.cli.options import typed
from lectern.decide.gaps import NAMES
from lectern.errors import Misuse

app = typer.Typer()
YEARS = 2000, 2100


@app.command(
    help="What was planned and what was really sent of each class that began on these days, and the sums by "
    f"institution.\n\nColumns, a line for each class: {', '.join(NAMES)}. Times that end in _s are seconds."
)
def report(
    since: Annotated[str | None, typer.Option("--from", help="The first day, as 2026-11-25; yesterday.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="The last day; the first one.")] = None,
    institution: Annotated[str | None, typer.Option("--institution", help="Only classes of this one.")] = None,
    form: Annotated[Format, typer.Option("--format", help="How it is written.")] = Format.csv,
) -> None:
    """Print the report."""
    yesterday = datetime.fromtimestamp(time.time()).astimezone().date() - timedelta(days=1)
    first = _day("--from", since) if since else yesterday
    last = _day("--to", until) if until else first
    if last < first:
        raise Misuse("--to: {until} is before {first}.", until=until, first=first)
    institution = typed(institution) if institution is not None else None  # '' is none of them, not all
    begins, ends = _begin(first), _begin(last + timedelta(days=1))
    with readers.teacher().looking() as connection:
        found = made(connection, begins, ends, institution)
    title = f"As-run, {first:%Y-%m-%d} to {last:%Y-%m-%d}"
    sys.stdout.write(written(found, form, title if institution is None else f"{title}, {institution}"))


def _day(option: str, text: str) -> date:
    with suppress(ValueError, OverflowError):
        found = datetime.strptime(text, "%Y-%m-%d").astimezone().date()
        if YEARS[0] <= found.year <= YEARS[1]:
            return found
    raise Misuse("{option}: {text!r:.40} is no day. Write it as 2026-11-25.", option=option, text=text)


def _begin(day: date) -> float:
    """When the local day begins (epoch seconds); one on which clocks are changed has 23 hours or 25."""
    return datetime.combine(day, time_of_day()).timestamp()
