"""``lectern book``, ``change`` and ``cancel``: a class by hand, as the platform books and changes it by messages."""

import asyncio
import json
import os
import shlex
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from sqlalchemy import Connection

from lectern.cli import readers
from lectern.cli.options import Json, me, on_bus, read, say
from lectern.db import account, bookings
from lectern.db import transcodings as db_transcodings
from lectern.db.writer import lines
from lectern.decide import forecast
from lectern.decide.booking import decide_orders
from lectern.decide.forecast import Transcoding
from lectern.errors import LecternError, Malformed, Misuse
from lectern.i18n import Text
from lectern.model.plan import Changes
from lectern.redis.client import Bus
from lectern.settings import Common, TeacherSettings
from lectern.states import BookingState
from lectern.wire.fields import BACKUP
from lectern.wire.messages import Booking, Cancel, Change
from lectern.wire.parser import in_words, parse

app = typer.Typer()
_Asked = Booking | Change | Cancel
WAIT_S = 600.0
CANCEL_S = 30.0
"""Seconds for which a cancel waits for its answer, which a streamer that is there gives at once."""

UNKNOWN = "(whichever is alive)"
"""In the place of a streamer: Redis, which knows who is alive, does not answer."""

DEMO = Path(".demo/env")
"""The settings of the demo that stands in this folder; it deletes them when it ends."""
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be decided now; send nothing.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the answer; exit code 1 if it is refused.")]
_File = Annotated[Path | None, typer.Argument(help="A JSON file with one booking, or - for standard input.")]
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
def book(
    file: _File = None,
    example: Annotated[bool, typer.Option("--example", help="Print a booking that begins in ten minutes.")] = False,
    dry_run: DryRun = False,
    wait: Wait = False,
    as_json: Json = False,
) -> None:
    """Book a class by hand: put a booking on the order stream."""
    if example:
        print(json.dumps(_example(time.time()), indent=1))
        return
    booking = _read(file)
    if dry_run:
        said = _plan(booking)
        say(as_json, {"class_id": booking.class_id, "plan": said}, said)
        return
    _send(booking, "sent to be booked", wait_s=WAIT_S if wait else None, as_json=as_json)


def _read(file: Path | None) -> Booking:
    if file is None:
        raise Misuse(
            Text("Missing argument: name a JSON file with one booking, or - ; lectern book --example prints one.")
        )
    name = "standard input" if str(file) == "-" else str(file)
    text = sys.stdin.buffer.read() if str(file) == "-" else read(file)
    try:
        return parse(text, (Booking,)).model_copy(update={"by": me()})
    except Malformed as error:
        raise Misuse("{thing}: {what}", thing=name, what=error) from error


def _example(now: float) -> dict[str, Any]:
    """A booking that can be aired here, if the environment or a demo in this folder says how.

    They give a JSON object of fields in place of the made-up ones; CLASS_ID in them stands for the class.
    """
    name = "LECTERN_EXAMPLE"
    fields = os.environ.get(name) or ""
    if not fields and DEMO.is_file():
        pairs = [word.partition("=") for word in shlex.split(read(DEMO))]
        fields = next((text for known, _, text in pairs if known == name), "")
    start, class_id = int(now // 60 + 10) * 60, f"c-{time.strftime('%m%d-%H%M%S', time.localtime(now))}"
    try:
        own = dict(json.loads(fields.replace("CLASS_ID", class_id) or "{}"))
    except (ValueError, TypeError) as error:
        raise Misuse("LECTERN_EXAMPLE: {given!r} is no JSON object.", given=fields[:80]) from error
    return {
        "cmd": "order",
        "class_id": class_id,
        "institution_id": "inst-1",
        "video_url": "https://origin.example/6666/6666.flv",
        "start_time": start,
        "end_time": start + 2700,
        "push_url": f"rtmp://push.example/live/{class_id}",
        "record_id": 6666,
        "video_resolution": "720P",
        "video_url_list": {"720P": "https://origin.example/6666/6666_720P.flv"},
        **own,
    }


def _send(message: _Asked, done: str, *, wait_s: float | None, as_json: bool = False) -> None:
    """Send a message about a class, and say that it is *done*; or wait *wait_s* for its answer, and exit by it."""
    class_id, settings = message.class_id, Common.load()
    to, answers = (getattr(settings, name) for name in (message.comes_by, message.comes_by.replace("_", "_result_")))
    if wait_s is None:
        on_bus(settings, lambda bus: bus.add(to, message.to_json()))
        line = f"{class_id}: {done}; whether it is taken, says: lectern explain {class_id}"
        say(as_json, {"class_id": class_id, "result": "sent"}, [line])
        return
    answer = on_bus(settings, lambda bus: _asked(bus, message, to, answers, wait_s))
    say(as_json, answer, [f"{class_id}: {answer['result']}, {answer['code']}: {answer['message']}"])
    raise typer.Exit(0 if answer["result"] == "success" else 1)


async def _asked(bus: Bus, message: _Asked, to: str, answered_on: str, wait_s: float) -> dict[str, Any]:
    """The answer to a message; raises LecternError if none comes within *wait_s* seconds after Redis has taken it."""
    async with bus.hearing.subscribed([answered_on]) as heard:
        await bus.add(to, message.to_json())
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                async for one in heard:
                    fields: Any = None
                    with suppress(ValueError):  # another program's message
                        fields = json.loads(one[1]) if one is not None else None
                    is_answer = isinstance(fields, dict) and {"result", "code"} <= fields.keys()
                    if is_answer and fields.get("class_id") == message.class_id:
                        return {"message": "", **fields}
    raise LecternError(
        "{class_id}: no answer within {waited_s:g} s. See: lectern explain {class_id}, lectern status",
        class_id=message.class_id,
        waited_s=wait_s,
    )


def _plan(message: Booking | Change) -> list[str]:
    """What the teacher would write now; whether a streamer's disk has room is known only once it is asked."""
    place, class_id = readers.teacher(), message.class_id
    own, changes = place.settings, Changes(place.settings, time.time())
    alive, when = _alive(own), ""  # without Redis, the streamers that have classes are taken for those that are alive
    with place.looking() as connection:
        alive = list(bookings.loads(connection, changes.now)) or [UNKNOWN] if alive is None else alive
        booked, _ = (account.booking(connection, one) for one in (class_id, f"{class_id}{BACKUP}"))
        if isinstance(message, Change):
            from flows.teacher.bookings import decided_changes  # noqa: PLC0415 (takes seconds: it loads Prefect)

            decided_changes(alive, connection, changes, [message])
        else:
            changes.learn({class_id: booked} if booked is not None else {})
            decide_orders(changes, [message], [], bookings.facts(connection, changes, [message], alive))
            when = _when(connection, changes, message) if booked is None else ""
    rows = ((row["class"], row["decision"], row["code"], row["where"], row["detail"]) for row in changes.table)
    table = [f"{name}: {' '.join(str(one) for one in its if one)}" for name, *its in rows]
    return [*lines(changes), *table, *([f"{class_id}: {when}"] if when else [])]


def _when(connection: Connection, changes: Changes, booking: Booking) -> str:
    """When the recording of a class that is taken would be there; empty if nobody says so."""
    state = changes.orders[booking.class_id].state
    begun = [Transcoding(one.stem, one.record_id, one.backend, booking.start_time) for one in changes.begun]
    made_at = db_transcodings.made_at(connection, changes.settings, changes.now, begun).get(booking.stem)
    if state is BookingState.PLACED or (state is BookingState.WAITING and made_at is not None):
        with suppress(LecternError):  # without Redis nobody says when
            heard = readers.words(changes.settings).values()
            waits_for = made_at if state is BookingState.WAITING else None
            return forecast.booked_now(booking, heard, changes.now, waits_for)[1]
    return ""


def _alive(own: TeacherSettings) -> list[str] | None:
    """The streamers that can take classes; None if Redis does not answer."""
    with suppress(LecternError):
        return list(on_bus(own, lambda bus: bus.alive(own.streamers_key, own.streamer_lost_after_s), readers.LOOK_S))
    return None


@app.command()
def cancel(class_id: str) -> None:
    """Cancel a class by hand; exit code 1 if nobody has booked it, if it is over, or if its streamer does not answer.

    The cancel holds all the same: it is sent to the streamer again, and to a class whose booking is yet to come.
    """
    try:
        message = Cancel(class_id=class_id, by=me())
    except ValidationError as error:
        raise Misuse(in_words(error)) from error
    _send(message, "the cancel is sent", wait_s=CANCEL_S)


@app.command()
def change(
    class_id: str,
    start: _Start = None,
    end: _End = None,
    push_url: _Push = None,
    push_url_backup: _Backup = None,
    recording: _Recording = None,
    dry_run: DryRun = False,
    wait: Wait = False,
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
    _send(message, "the change is sent", wait_s=WAIT_S if wait else None, as_json=as_json)


def _seconds(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text) if text.replace(".", "", 1).isdecimal() else datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise Misuse(
            "{option}: {text!r:.60} is no time. Write it {example}.", option=option, text=text, example=_TIME
        ) from error


def _recording(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        fields = json.loads(read(file))
    except ValueError as error:
        raise Misuse("{file}: it is not JSON: {error}", file=file, error=error) from error
    if not isinstance(fields, dict) or not fields or fields.keys() - set(RECORDING):
        raise Misuse(
            "{file}: a JSON object with some of {names} is needed, and nothing else.",
            file=file,
            names=", ".join(RECORDING),
        )
    return fields
