"""``lectern …``: what the operations team types."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Coroutine
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from redis.exceptions import RedisError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from lectern import logs
from lectern.effects import rekey as renaming
from lectern.effects import schema, status
from lectern.effects.bus import Bus
from lectern.effects.tables.engine import open_database
from lectern.errors import LecternError, Malformed, Misuse
from lectern.messages import Booking, Cancel, parse
from lectern.rollout import commands as rollout
from lectern.settings import Common, Settings, StreamerSettings, TeacherSettings

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Airs recorded lessons as live classes. Settings come from the environment and .env; see README.md.",
)
cache_app = typer.Typer(no_args_is_help=True, help="A streamer's cache.")
app.add_typer(cache_app, name="cache")
app.add_typer(rollout.app, name="rollout")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


class Role(StrEnum):
    """What a host is."""

    teacher = "teacher"
    streamer = "streamer"


def _settings(role: Role, name: str | None = None) -> Settings:
    if role is Role.teacher:
        return TeacherSettings.load(**({"teacher_name": name} if name else {}))
    return StreamerSettings.load(**({"streamer_name": name} if name else {}))


def _prefect(settings: Common) -> None:
    """Prefect reads its settings from the environment when it is imported: so they are set before."""
    os.environ["PREFECT_API_URL"] = settings.prefect_api_url
    if settings.prefect_api_auth_string is not None:
        os.environ["PREFECT_API_AUTH_STRING"] = settings.prefect_api_auth_string.get_secret_value()
    os.environ["PREFECT_WORKER_QUERY_SECONDS"] = str(settings.poll_interval_s)
    # Our own watch ends cancelled runs; the worker's would kill the process that all runs share.
    os.environ["PREFECT_WORKER_ENABLE_CANCELLATION"] = "false"
    os.environ["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "false"
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")


@app.command()
def serve(
    role: Role,
    name: Annotated[str | None, typer.Option(help="The host's name, if not the one in the settings.")] = None,
) -> None:
    """Run this host's resident process until SIGTERM."""
    settings = _settings(role, name)
    logs.set_up(settings.log_format, settings.log_level)
    _prefect(settings)
    from flows import resident  # noqa: PLC0415 (Prefect reads its settings when it is imported)

    raise typer.Exit(resident.serve(settings))


@app.command()
def init(
    role: Role,
    name: Annotated[str | None, typer.Option(help="The host's name, if not the one in the settings.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Say what would be done to the database, do nothing.")] = False,
    json_: Json = False,
) -> None:
    """Migrate this host's database and make its deployments; safe to repeat."""
    settings = _settings(role, name)
    engine = open_database(settings.database_url)
    if check:
        done = schema.plan(engine, role.value)
        _say(json_, {"changed": bool(done), "database": done}, done or ["The database is as it should be."])
        return
    done = schema.upgrade(engine, role.value)
    made = _deploy(settings)
    _say(json_, {"changed": bool(done or made), "database": done, "prefect": made}, [*done, *made])


@app.command()
def deploy(
    role: Role,
    name: Annotated[str | None, typer.Option(help="The host's name, if not the one in the settings.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Say what would be made in Prefect, do nothing.")] = False,
    json_: Json = False,
) -> None:
    """Make this host's work queue, deployments and automations in Prefect, and nothing else; safe to repeat."""
    made = _deploy(_settings(role, name), check=check)
    _say(json_, {"changed": bool(made), "prefect": made}, made or ["Prefect has all that this host needs."])


def _deploy(settings: Settings, *, check: bool = False) -> list[str]:
    _prefect(settings)
    from flows import deployments  # noqa: PLC0415 (Prefect reads its settings when it is imported)

    return asyncio.run(deployments.missing(settings) if check else deployments.make(settings))


@app.command()
def book(file: Annotated[Path, typer.Argument(help="A JSON file with one booking, or - for standard input.")]) -> None:
    """Book a class by hand: put a booking on the order stream."""
    text = sys.stdin.read() if str(file) == "-" else _text(file)
    try:
        booking = parse(text, (Booking,))
    except Malformed as error:
        raise Misuse(f"{file}: {error.message}") from error
    settings = Common.load()
    asyncio.run(_add(settings, settings.order_channel, booking.to_json()))
    print(f"{booking.class_id}: booked; watch it with: lectern explain {booking.class_id}")


@app.command()
def cancel(class_id: str) -> None:
    """Cancel a class by hand."""
    try:
        message = parse(json.dumps({"cmd": "cancel", "class_id": class_id}), (Cancel,))
    except Malformed as error:
        raise Misuse(error.message) from error
    settings = Common.load()
    asyncio.run(_add(settings, settings.cancel_channel, message.to_json()))
    print(f"{class_id}: cancel is sent; watch it with: lectern explain {class_id}")


@app.command()
def rekey(
    file: Annotated[Path | None, typer.Argument(help="A file of rules, each a line OLD=>NEW.")] = None,
    rule: Annotated[list[str] | None, typer.Option(help="A rule: 'a:{record_id}=>{record_id}'.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, change nothing.")] = False,
    back: Annotated[bool, typer.Option("--back", help="Rename from NEW to OLD.")] = False,
    journal: Annotated[Path | None, typer.Option(help="Append old and new names to this file.")] = None,
    json_: Json = False,
) -> None:
    """Rename Redis keys by rules, never over another key; safe to repeat. Clashes are listed: exit code 1."""
    rules = renaming.rules_in([*(_text(file).splitlines() if file else []), *(rule or [])], back=back)
    bar = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with renaming.opened(Common.load().redis_url.get_secret_value()) as client, bar:
        task = bar.add_task("keys looked at", total=renaming.to_look_at(client, rules))
        looked = partial(bar.advance, task)
        found = renaming.renamed(client, rules, dry_run=dry_run, journal=journal, on_slice=looked)
    _say(json_, asdict(found), found.lines())
    raise typer.Exit(1 if found.clash_count else 0)


@app.command("status")
def status_(json_: Json = False) -> None:
    """Bookings by state, renditions under way, streamers, what waits. Run it on the teacher's host."""
    settings = TeacherSettings.load()
    found = status.of_teacher(open_database(settings.database_url), time.time())
    found["streamers"] = asyncio.run(_streamers(settings))
    _say(json_, found, status.lines(found))


@app.command()
def explain(thing: Annotated[str, typer.Argument(help="A class_id, or a record_id.")], json_: Json = False) -> None:
    """The whole story of a class or a record, in time order. Run it on the teacher's or the streamer's host."""
    stories = [status.story(open_database(one.database_url), role, thing) for role, one in _here()]
    merged = sorted((event for story in stories for event in story), key=lambda event: str(event["at"]))
    if not merged:
        raise Misuse(f"{thing}: nothing is known of it here. Is it the class_id or record_id, and the right host?")
    _say(json_, {"thing": thing, "events": merged}, [status.event_line(event) for event in merged])


@cache_app.command("ls")
def cache_ls(json_: Json = False) -> None:
    """What is cached: size, citations, state, last use."""
    settings = StreamerSettings.load()
    rows = status.cached(open_database(settings.database_url))
    if json_:
        print(json.dumps(rows))
        return
    table = Table("rendition", "state", "bytes", "citations", "last used")
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("stem", "state", "size_bytes", "num_cite", "last_used")))
    Console().print(table)


@cache_app.command("evict")
def cache_evict(stem: str) -> None:
    """Delete one rendition that no class needs."""
    settings = StreamerSettings.load()
    size = status.evict(open_database(settings.database_url), settings.video_root, stem)
    print(f"{stem}: evicted, {size} bytes are free")


@cache_app.command("reconcile")
def cache_reconcile(json_: Json = False) -> None:
    """Say what the disk and the database disagree about; the start of `lectern serve streamer` mends it."""
    settings = StreamerSettings.load()
    found = status.differences(open_database(settings.database_url), settings.video_root)
    _say(json_, {"differences": found}, found or ["The disk and the database agree."])


def _here() -> list[tuple[schema.Role, Settings]]:
    """The roles that have a database here."""
    found: list[tuple[schema.Role, Settings]] = []
    candidates: list[tuple[schema.Role, Settings]] = []
    if os.environ.get("TRANSCODE_SIGN_KEY") or Path(".env").exists():
        try:
            candidates.append(("teacher", TeacherSettings.load()))
        except Misuse:
            candidates.clear()  # a streamer's host has no such key
    candidates.append(("streamer", StreamerSettings.load()))
    for role, settings in candidates:
        url = settings.database_url
        if not url.startswith("sqlite:///") or Path(url.removeprefix("sqlite:///")).exists():
            found.append((role, settings))
    if not found:
        raise Misuse("No database is here. Set TEACHER_DATABASE_URL or STREAMER_DATABASE_URL, or go to its folder.")
    return found


async def _add(settings: Common, stream: str, body: str) -> None:
    await _on_bus(settings, lambda bus: bus.add(stream, body))


async def _streamers(settings: TeacherSettings) -> dict[str, Any]:
    found: dict[str, Any] = await _on_bus(
        settings, lambda bus: bus.alive(settings.streamers_key, settings.streamer_lost_after_s)
    )
    return found


async def _on_bus(settings: Common, work: "Any") -> Any:  # noqa: ANN401 (a call of the bus)
    bus = Bus.open(settings.redis_url.get_secret_value())
    try:
        coroutine: Coroutine[Any, Any, Any] = work(bus)
        return await coroutine
    except (RedisError, OSError) as error:
        raise LecternError(f"Redis does not answer: {error}. Is REDIS_URL right, and Redis up?") from error
    finally:
        await bus.close()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise Misuse(f"{file}: {error}") from error


def _say(as_json: bool, fields: dict[str, Any], lines: list[str]) -> None:
    print(json.dumps(fields) if as_json else "\n".join(lines))


def main() -> None:
    """The entry point: an error is one sentence and what to do; misuse exits with 2."""
    try:
        app()
    except Misuse as error:
        sys.exit(_complain(error, 2))
    except LecternError as error:
        sys.exit(_complain(error, 1))


def _complain(error: LecternError, status_code: int) -> int:
    print(f"lectern: {error}", file=sys.stderr)
    return status_code
