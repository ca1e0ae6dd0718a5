"""``lectern status``, ``explain`` and ``cache``: how things stand, and why."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine

from lectern.cli.terms import Json, on_bus, say
from lectern.decide import outlook
from lectern.effects.files import quarantine
from lectern.effects.rows import schema, status, story
from lectern.effects.rows.tables.engine import open_database
from lectern.errors import LecternError, Misuse
from lectern.settings import Settings, StreamerSettings, TeacherSettings

app = typer.Typer()
cache_app = typer.Typer(no_args_is_help=True, help="A streamer's cache.")
app.add_typer(cache_app, name="cache")
WATCH_S = 2.0


@app.command("status")
def status_(
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every 2 s, until Ctrl-C.")] = False,
) -> None:
    """Bookings by state, renditions under way, streamers, what waits. Run it on the teacher's host."""
    settings = TeacherSettings.load()
    if not watch:
        found = _standing(settings)
        say(as_json, found, status.lines(found))
        return
    with Live(console=Console(), auto_refresh=False, screen=sys.stdout.isatty()) as live:
        for lines in _again(settings):
            live.update(Text("\n".join(lines)), refresh=True)
            time.sleep(WATCH_S)


def _again(settings: TeacherSettings) -> Iterator[list[str]]:
    while True:
        at = time.strftime("%H:%M:%S")
        try:
            yield [f"{at}  lectern status --watch, Ctrl-C ends it", *status.lines(_standing(settings))]
        except LecternError as error:
            yield [f"{at}  {error.message}"]


def _standing(settings: TeacherSettings) -> dict[str, Any]:
    found = status.of_teacher(open_database(settings.database_url), time.time())
    found["streamers"] = asyncio.run(_streamers(settings))
    return found


@app.command()
def explain(thing: Annotated[str, typer.Argument(help="A class_id, or a record_id.")], as_json: Json = False) -> None:
    """What happened to a class or a record, in time order, and what comes next or is to be typed.

    Run it on the teacher's or the streamer's host.
    """
    here = [(role, open_database(one.database_url)) for role, one in _here()]
    events = [event for role, engine in here for event in story.story(engine, role, thing)]
    events.sort(key=lambda event: float(event["at"]))
    malformed = any(event["what"] == "malformed" for event in events)
    following = [sentence for role, engine in here for sentence in _next(engine, role, thing, malformed=malformed)]
    if not events and not following:
        raise Misuse(f"{thing}: nothing is known of it here. Is it the class_id or record_id, and the right host?")
    lines = [story.event_line(event) for event in events] + [f"--> {sentence}" for sentence in following]
    say(as_json, {"thing": thing, "events": events, "next": following}, lines)


def _next(engine: Engine, role: schema.Role, class_id: str, *, malformed: bool) -> list[str]:
    now = time.time()
    if role == "streamer":
        cited = story.cited(engine, class_id)
        return [] if cited is None else outlook.of_airing(cited, now)
    booked = story.booked(engine, class_id)
    if booked is None:
        return outlook.of_unbooked(story.kept_since(engine, role, class_id), malformed=malformed, now=now)
    return outlook.of_booking(*booked, now)


@cache_app.command("ls")
def cache_ls(as_json: Json = False) -> None:
    """What is cached: size, citations, state, last use."""
    settings = StreamerSettings.load()
    rows = status.cached(open_database(settings.database_url))
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("rendition", "state", "bytes", "citations", "last used")
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("stem", "state", "size_bytes", "num_cite", "last_used")))
    Console().print(table)
    aside = quarantine.held(settings.video_root)
    if aside:
        size_bytes = sum(one.size_bytes for one in aside)
        print(f"quarantine: {len(aside)} files, {size_bytes:,} bytes, beside the cache, in {settings.video_root}")


@cache_app.command("evict")
def cache_evict(stem: str) -> None:
    """Delete one rendition that no class needs."""
    settings = StreamerSettings.load()
    size = status.evict(open_database(settings.database_url), settings.video_root, stem)
    print(f"{stem}: evicted, {size} bytes are free")


@cache_app.command("reconcile")
def cache_reconcile(as_json: Json = False) -> None:
    """Say what the disk and the database disagree about; the start of `lectern serve streamer` mends it."""
    settings = StreamerSettings.load()
    found = status.differences(open_database(settings.database_url), settings.video_root)
    say(as_json, {"differences": found}, found or ["The disk and the database agree."])


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


async def _streamers(settings: TeacherSettings) -> dict[str, Any]:
    found: dict[str, Any] = await on_bus(
        settings, lambda bus: bus.alive(settings.streamers_key, settings.streamer_lost_after_s)
    )
    return found
