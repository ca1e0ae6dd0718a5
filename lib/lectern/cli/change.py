"""``lectern change``: changes a booked class by hand, as the platform does by a message."""

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from lectern.cli import readers
from lectern.cli.booking import send
from lectern.cli.options import Json, me, read, say
from lectern.db import bookings
from lectern.decide import change as decide
from lectern.decide.plan_text import lines
from lectern.decide.transcoding import Limits
from lectern.errors import Misuse
from lectern.i18n import Text
from lectern.model.plan import Changes
from lectern.settings import Common
from lectern.wire.messages import Change
from lectern.wire.parser import in_words

app = typer.Typer()
RECORDING = ("record_id", "video_url", "video_url_list", "video_resolution")
_TIME = "as 2026-11-26T19:00 (this host's time), or in epoch seconds"
_Start = Annotated[str | None, typer.Option("--start", help=f"When it begins, {_TIME}.")]
_End = Annotated[str | None, typer.Option("--end", help=f"When it ends, {_TIME}.")]
_Push = Annotated[str | None, typer.Option("--push-url", help="Where it is pushed to.")]
_Backup = Annotated[
    str | None, typer.Option("--push-url-backup", help="Where its second airing is pushed to; '' takes it away.")
]
_Recording = Annotated[
    Path | None, typer.Option("--recording", help=f"A JSON file with another recording: {', '.join(RECORDING)}.")
]


@app.command()
def change(
    class_id: str,
    start: _Start = None,
    end: _End = None,
    push_url: _Push = None,
    push_url_backup: _Backup = None,
    recording: _Recording = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written now; send nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answer; exit code 1 if it is refused.")] = False,
    as_json: Json = False,
) -> None:
    """Change a booked class by hand, also while it is on air; what is not named stays as it is."""
    fields: dict[str, Any] = {"start_time": _seconds("--start", start), "end_time": _seconds("--end", end)}
    fields |= {"push_url": push_url, "push_url_backup": push_url_backup, **_recording(recording)}
    try:
        message = Change(class_id=class_id, by=me(), **fields)
    except ValidationError as error:
        raise Misuse(in_words(error)) from error
    if dry_run:
        said = _plan(message)
        say(as_json, {"class_id": class_id, "plan": said}, said)
        return
    settings = Common.load()
    told = f"{class_id}: the change is sent; whether it is taken, says: lectern explain {class_id}"
    send(message, settings.change_channel, settings.change_result_channel if wait else None, told, as_json=as_json)


def _seconds(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text) if text.replace(".", "", 1).isdecimal() else datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise Misuse(
            Text("{option}: {text!r:.60} is no time. Write it {example}.", option=option, text=text, example=_TIME)
        ) from error


def _recording(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        fields = json.loads(read(file))
    except ValueError as error:
        raise Misuse(Text("{file}: it is not JSON: {error}", file=file, error=error)) from error
    if not isinstance(fields, dict) or not fields or fields.keys() - set(RECORDING):
        raise Misuse(
            Text(
                "{file}: a JSON object with some of {names} is needed, and nothing else.",
                file=file,
                names=", ".join(RECORDING),
            )
        )
    return fields


def _plan(message: Change) -> list[str]:
    """What the teacher would write now; whether a streamer's disk has room is known only once it is asked."""
    from flows.teacher.bookings import facts  # noqa: PLC0415 (takes seconds, because it loads Prefect)

    place = readers.teacher()
    changes = Changes(place.settings, time.time())
    with place.looking() as connection:
        known = facts(connection, changes, [message], list(bookings.having(connection, changes.now)))
    decide.decide(changes, [message], known, Limits.of(place.settings))
    return [
        *lines(changes),
        *(f"{row['class']}: {row['decision']} {row['code']} {row['detail']}" for row in changes.table),
    ]
