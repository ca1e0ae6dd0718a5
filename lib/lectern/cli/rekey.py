"""``lectern rekey``: Redis keys are renamed by rules."""

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from lectern.cli.options import Json, read, say
from lectern.redis import rename as renaming
from lectern.settings import Common

app = typer.Typer()


@app.command()
def rekey(
    file: Annotated[Path | None, typer.Argument(help="A file of rules, each a line OLD=>NEW.")] = None,
    rule: Annotated[list[str] | None, typer.Option(help="A rule: 'a:{record_id}=>{record_id}'.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, change nothing.")] = False,
    back: Annotated[bool, typer.Option("--back", help="Rename from NEW to OLD.")] = False,
    journal: Annotated[Path | None, typer.Option(help="Append old and new names to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Rename Redis keys by rules, never over another key; safe to repeat. Clashes are listed: exit code 1.

    What differs from key to key is a field in braces: {record_id}, {resolution}, or any other name for an id. A * is
    no wildcard.
    """
    rules = renaming.rules_in([*(read(file).splitlines() if file else []), *(rule or [])], back=back)
    bar = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with renaming.opened(Common.load().redis_url.get_secret_value()) as client, bar:
        task = bar.add_task("keys looked at", total=renaming.to_look_at(client, rules))
        looked = partial(bar.advance, task)
        found = renaming.renamed(client, rules, dry_run=dry_run, journal=journal, on_slice=looked)
    say(as_json, asdict(found), found.lines())
    raise typer.Exit(1 if found.clash_count else 0)
