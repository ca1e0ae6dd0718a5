"""``lectern book`` and ``cancel``: book or cancel a class by hand, as the platform does by messages."""

import asyncio
import json
import os
import shlex
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from lectern.cli import readers
from lectern.cli.options import Json, me, on_bus, read, say
from lectern.db import account, bookings, transcodings
from lectern.db import forecast as db_forecast
from lectern.errors import LecternError, Malformed, Misuse
from lectern.i18n import Text
from lectern.redis.client import Bus
from lectern.settings import Common
from lectern.states import BOOKING_OVER, BookingState
from lectern.wire.messages import Booking, Cancel, Change
from lectern.wire.parser import parse

app = typer.Typer()
WAIT_S = 600.0
File = Annotated[Path | None, typer.Argument(help="A JSON file with one booking, or - for standard input.")]


@app.command()
def book(
    file: File = None,
    example: Annotated[bool, typer.Option("--example", help="Print a booking that begins in ten minutes.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be decided now; send nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answer; exit code 1 if it is refused.")] = False,
    as_json: Json = False,
) -> None:
    """Book a class by hand: put a booking on the order stream."""
    if example:
        print(json.dumps(_example(time.time(), _example_fields()), indent=1))
        return
    booking = _read(file)
    if dry_run:
        said = _plan(booking)
        say(as_json, {"class_id": booking.class_id, "plan": said}, said)
        return
    settings = Common.load()
    told = f"{booking.class_id}: sent to be booked; whether it is taken, says: lectern explain {booking.class_id}"
    send(booking, settings.order_channel, settings.order_result_channel if wait else None, told, as_json=as_json)


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
        raise Misuse(Text("{thing}: {what}", thing=name, what=error)) from error


DEMO = Path(".demo/env")
"""The settings of the demo that stands in this folder; it deletes them when it ends."""


def _example_fields() -> str:
    """The fields of a booking that can be aired here, as the environment or a demo in this folder says."""
    name = "LECTERN_EXAMPLE"
    if os.environ.get(name) or not DEMO.is_file():
        return os.environ.get(name) or "{}"
    pairs = [word.partition("=") for word in shlex.split(read(DEMO))]
    return next((text for known, _, text in pairs if known == name), "{}")


def _example(now: float, fields: str) -> dict[str, Any]:
    """A booking with *fields* (a JSON object) in place of the made-up ones; CLASS_ID in them stands for its class."""
    start, class_id = int(now // 60 + 10) * 60, f"c-{time.strftime('%m%d-%H%M%S', time.localtime(now))}"
    try:
        own = dict(json.loads(fields.replace("CLASS_ID", class_id)))
    except (ValueError, TypeError) as error:
        raise Misuse(Text("LECTERN_EXAMPLE: {given!r} is no JSON object.", given=fields[:80])) from error
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


def send(message: Booking | Change, to: str, answered_on: str | None, told: str, *, as_json: bool) -> None:
    """Send a message about a class to the stream *to*, and say so as *told*; or wait for its answer, and exit by it."""
    class_id, settings = message.class_id, Common.load()
    if answered_on is None:
        asyncio.run(on_bus(settings, lambda bus: bus.add(to, message.to_json())))
        say(as_json, {"class_id": class_id, "result": "sent"}, [told])
        return
    answer = asyncio.run(on_bus(settings, lambda bus: _asked(bus, to, message.to_json(), class_id, answered_on)))
    say(as_json, answer, [f"{class_id}: {answer['result']}, {answer['code']}: {answer['message']}"])
    raise typer.Exit(0 if answer["result"] == "success" else 1)


async def _asked(bus: Bus, to: str, body: str, class_id: str, answered_on: str) -> dict[str, Any]:
    """The answer to a message; raises LecternError after WAIT_S seconds."""
    try:
        async with asyncio.timeout(WAIT_S), bus.subscribed([answered_on]) as heard:
            await bus.add(to, body)
            async for one in heard:
                answer = _answer(one[1], class_id) if one is not None else None
                if answer is not None:
                    return answer
    except TimeoutError:
        pass
    raise LecternError(
        Text(
            "{class_id}: no answer within {waited_s:g} s. See: lectern explain {class_id}, lectern status",
            class_id=class_id,
            waited_s=WAIT_S,
        )
    )


def _answer(body: str, class_id: str) -> dict[str, Any] | None:
    try:
        fields = json.loads(body)
    except ValueError:
        return None  # another program's message
    is_ours = isinstance(fields, dict) and fields.get("class_id") == class_id and {"result", "code"} <= fields.keys()
    return {"message": "", **fields} if is_ours else None


def _plan(booking: Booking) -> list[str]:
    """What the teacher would decide now; whether a streamer's disk has room is known only once it is asked."""
    from lectern.decide import booking as decide_booking  # noqa: PLC0415 (only here)
    from lectern.decide import forecast  # noqa: PLC0415 (only here)
    from lectern.decide.transcoding import Limits  # noqa: PLC0415 (only here)

    place = readers.teacher()
    now = time.time()
    with place.looking() as connection:
        known = decide_booking.already_answered(bookings.by_id(connection, [booking.class_id]))
        states = transcodings.states(connection, {booking.key} if booking.key else set())
        taken = bookings.taken(connection, decide_booking.contenders([booking], known, states, now), now)
        least_s = db_forecast.least_s(connection, place.settings)
        before, limits = decide_booking.Before(known, states, taken, least_s), Limits.of(place.settings)
        plan = decide_booking.plan([booking], before, limits, now)
        made_at = db_forecast.transcoded(connection, place.settings, now, plan.transcodings()).get(booking.stem)
    states_now = [verdict.state for verdict in plan.verdicts]
    said = ""
    if BookingState.PLACED in states_now or (BookingState.WAITING in states_now and made_at is not None):
        with suppress(LecternError):  # without Redis nobody says when
            heard = readers.words(place.settings).values()
            made_at = made_at if BookingState.WAITING in states_now else None
            _, said = forecast.booked_now(booking, heard, now, made_at)
    return [*plan.lines(), *([f"{booking.class_id}: {said}"] if said else [])]


@app.command()
def cancel(class_id: str) -> None:
    """Cancel a class by hand; exit code 1 if nobody has booked it, or if it is over."""
    try:
        message = parse(json.dumps({"cmd": "cancel", "class_id": class_id, "by": me()}), (Cancel,))
    except Malformed as error:
        raise Misuse(error.message) from error
    state = _state(class_id)
    if isinstance(state, BookingState) and state in BOOKING_OVER:
        raise LecternError(
            Text(
                "{class_id}: it is {state} already, so there is nothing to cancel; nothing was sent.",
                class_id=class_id,
                state=state,
            )
        )
    settings = Common.load()
    asyncio.run(on_bus(settings, lambda bus: bus.add(settings.cancel_channel, message.to_json())))
    if state == "unknown":
        raise LecternError(
            Text(
                "{class_id}: nobody has booked it here. The cancel was sent all the same: if its booking comes within "
                "ten minutes, it is cancelled. Is the class_id right?",
                class_id=class_id,
            )
        )
    print(f"{class_id}: cancel is sent; watch it with: lectern explain {class_id}")


def _state(class_id: str) -> BookingState | str:
    """The state of its booking; ``unknown`` if it has none, ``elsewhere`` if the teacher's database is not here."""
    try:
        place = readers.teacher()
    except Misuse:
        return "elsewhere"
    with place.looking() as connection:
        found = account.booking(connection, class_id)
    return "unknown" if found is None else found.state
