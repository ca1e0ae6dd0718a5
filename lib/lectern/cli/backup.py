"""``lectern backup`` and ``rekey``: a proved backup of this host's databases; Redis keys are renamed by rules."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import ArgumentError

from lectern.cli.options import Json, read, say, settings_of
from lectern.errors import LecternError, Misuse
from lectern.i18n import Text, msgid
from lectern.redis import rename as renaming
from lectern.rollout.backup import nightly, store
from lectern.rollout.backup.nightly import NightlyBackup
from lectern.settings import Common
from lectern.states import Role
from lectern.storage import disk

app = typer.Typer()

_Into = Annotated[Path | None, typer.Option("--into", help="The folder of the backups, if not BACKUP_DIR.")]
_Keep = Annotated[int, typer.Option("--keep", envvar="BACKUP_KEEP", min=1, help="How many of each database stay.")]
_To = Annotated[
    str | None,
    typer.Option("--to", envvar="BACKUP_TO", help="Copy it off this host, too: sftp://user@host/folder."),
]
_Key = Annotated[Path | None, typer.Option("--key", envvar="BACKUP_SSH_KEY", help="The SSH key for --to.")]
_Known = Annotated[
    Path | None,
    typer.Option("--known-hosts", envvar="BACKUP_KNOWN_HOSTS", help="The file with the host key of --to."),
]
_Role = Annotated[Role | None, typer.Argument(help="Whose database; its URL comes from the settings.")]
_Database = Annotated[
    str | None,
    typer.Option("--database", envvar="BACKUP_DATABASE_URL", help="Another database, such as the Prefect server's."),
]
_Name = Annotated[str | None, typer.Option("--name", help="How the backups of --database are called.")]
_Restore = Annotated[
    Path | None,
    typer.Option("--restore", help="Put this backup in the database's place instead; stop the program first."),
]


@app.command()
def backup(
    role: _Role = None,
    database: _Database = None,
    name: _Name = None,
    into: _Into = None,
    keep: _Keep = 14,
    to: _To = None,
    key: _Key = None,
    known_hosts: _Known = None,
    restore: _Restore = None,
    as_json: Json = False,
) -> None:
    """Copy a database while it is at work, prove the copy, try its restore; then prune the oldest backups."""
    target = nightly.CopyTarget.parse(to, key, known_hosts) if to else None
    found, called = _wanted(role, database, name)
    if restore is not None:
        made = nightly.restore(found, called, restore.absolute())
        say(as_json, made.model_dump(), [f"{made.database}: is again what it was when {restore} was made."])
        return
    into = (into or Common.load().backup_dir).absolute()
    try:
        str(into).encode()
    except UnicodeEncodeError as error:
        raise Misuse(
            "{into}: its name is no UTF-8, and no manifest could name it. Choose another folder.", into=into
        ) from error
    with nightly.alone(into):
        made = nightly.make(found, called, into, str(target or ""))
        # After a clock that was ahead is set back, older backups look newer than the one that was just made.
        newest, damaged = disk.backups(into, called)
        pruned = nightly.prune(newest, keep, needed={made.path.name})
        odd = [str(one) for one in damaged]
        failure = None
        try:
            if target is not None:
                made = nightly.copy_away(made, target)
                pruned += [f"{one} at {target}" for one in nightly.prune_away(made, target, keep)]
        except LecternError as error:
            failure = error
    say(
        as_json,
        {**made.model_dump(), "pruned": pruned, "damaged": odd, "failed": failure.message if failure else None},
        [
            *_lines(made, pruned),
            *(f"{one}: its manifest cannot be read, so it is no backup. Take it away." for one in odd),
        ],
    )
    if failure is not None and made.copied_to:
        text = msgid("The backup is here and at {place}, where older copies could not be deleted: {failure}")
        raise LecternError(text, place=made.copied_to, failure=failure) from failure
    if failure is not None:
        raise LecternError(
            "The backup is here, and no copy of it is off this host: {failure}", failure=failure
        ) from failure


def _wanted(role: Role | None, database: str | None, name: str | None) -> tuple[store.Store, str]:
    if (role is None) == (database is None):
        raise Misuse(
            Text("Say of what: lectern backup teacher, lectern backup streamer, or --database URL --name NAME.")
        )
    if role is not None:
        settings = settings_of(role, name)
        return store.at(settings.database_url), f"{role}-{settings.name}"
    assert database is not None  # exactly one of the two is given
    if not name or not name.replace("-", "").replace("_", "").isalnum():
        raise Misuse(Text("--database wants --name NAME, of letters, digits, - and _."))
    try:
        return store.at(database), name
    except (ArgumentError, ValueError) as error:  # a password may be in it
        raise Misuse(
            Text("--database is no URL. Write sqlite:////folder/file.db or postgresql://user@host/name.")
        ) from error


def _lines(made: NightlyBackup, pruned: list[str]) -> list[str]:
    rows = sum(made.rows.values())
    tables = f"{len(made.rows)} {'table' if len(made.rows) == 1 else 'tables'}"
    return [
        f"{made.folder}: {made.database} is backed up ({made.size_bytes / 1e6:,.1f} MB, {rows:,} rows in {tables}).",
        f"Its restore was tried. SHA-256 {made.sha256}",
        *([f"A copy is at {made.copied_to}."] if made.copied_to else []),
        *([f"Took away: {', '.join(pruned)}."] if pruned else []),
    ]


@app.command()
def rekey(
    file: Annotated[Path | None, typer.Argument(help="A file of rules, each a line OLD=>NEW.")] = None,
    rule: Annotated[list[str] | None, typer.Option(help="A rule: 'a:{record_id}=>{record_id}'.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, change nothing.")] = False,
    back: Annotated[bool, typer.Option("--back", help="Rename from NEW to OLD.")] = False,
    as_json: Json = False,
) -> None:
    """Rename Redis keys by rules, never over another key; safe to repeat. Clashes are listed: exit code 1.

    What differs from key to key is a field in braces: {record_id}, {resolution}, or any other name for an id. A * is
    no wildcard.
    """
    rules = renaming.rules_in([*(read(file).splitlines() if file else []), *(rule or [])], back=back)
    with renaming.opened(Common.load().redis_url.get_secret_value()) as client:
        found = renaming.renamed(client, rules, dry_run=dry_run)
    say(as_json, asdict(found), found.lines())
    raise typer.Exit(1 if found.clash_count else 0)
