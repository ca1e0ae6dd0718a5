"""``lectern explain``: how a class stands, what happened to it, and what comes next or what to type."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import typer

from lectern.cli import readers
from lectern.cli.options import Json, painted, say, typed
from lectern.cli.readers import Place
from lectern.db import account as db_account
from lectern.db import forecast
from lectern.decide import account as decide_account
from lectern.decide.account import Account, Standing
from lectern.errors import LecternError, Misuse
from lectern.formatting import padded
from lectern.i18n import BESIDE, Text, joined, translated, translator
from lectern.model.views import ClassView
from lectern.settings import StreamerSettings
from lectern.states import AiringState
from lectern.wire.fields import BACKUP

app = typer.Typer()
COLOURS = {
    Standing.ON_AIR: "green",
    Standing.READY: "green",
    Standing.AIRED: "green",
    Standing.AIRED_WITH_GAPS: "yellow",
    Standing.NOT_ON_AIR: "bold red",
    Standing.SILENT: "bold red",
    Standing.BROKEN: "red",
    Standing.REFUSED: "red",
    Standing.CANCELLED: "yellow",
}


@app.command()
def explain(thing: Annotated[str, typer.Argument(help="A class_id, or a record_id.")], as_json: Json = False) -> None:
    """What happened to a class or a record, in time order, and what comes next or is to be typed.

    Run it on the teacher's or the streamer's host.
    """
    now = time.time()
    thing = typed(thing)
    here = readers.here()
    found, trouble = looked_up(here, thing, now)
    known = decide_account.account(found, now)
    following = list(known.following) + ([trouble] if trouble else [])
    if not found.events and not known.header and not known.following:
        raise Misuse(
            Text(
                "{thing}: nothing is known of it here. Is it the class_id or record_id, and the right host?",
                thing=thing,
            )
        )
    fields = decide_account.fields(found, known, following)
    language = here[0].settings.lectern_lang
    told = [] if as_json else lines(thing, known, following, language)
    second = f"{thing}{BACKUP}"
    other, _ = looked_up(here, second, now)
    if other.events:
        account = decide_account.account(other, now)
        fields["backup"] = decide_account.fields(other, account, account.following)
        told += [] if as_json else ["", *lines(second, account, account.following, language)]
    say(as_json, fields, told)


def looked_up(here: Sequence[Place[Any]], thing: str, now: float) -> tuple[ClassView, str | None]:
    """What is known of *thing* here, and a sentence on what could not be asked, or None."""
    teacher = streamer = None
    made_at: dict[str, float] = {}
    for place in here:
        with place.looking() as connection:
            if isinstance(place.settings, StreamerSettings):
                streamer = db_account.at_streamer(connection, place.settings.name, thing, now)
                if streamer.cited is not None and streamer.cited.state is AiringState.WAITING:
                    _, ready_by = forecast.waiting(connection, place.settings, now).get(thing, (None, None))
                    streamer = replace(streamer, ready_by=ready_by)
            else:
                teacher = db_account.at_teacher(connection, place.settings.name, thing)
                if decide_account.is_to_be_made(teacher.booked):
                    made_at = forecast.transcoded(connection, place.settings, now)
    found = decide_account.gathered(teacher, streamer)
    if found.booked is None and found.cited is None:
        return found, None
    if found.cited is not None and found.cited.start_time <= now < found.cited.end_time:
        asked = readers.playout_says(here, thing, found.events)
        if asked is not None:
            return replace(found, sending=asked), None  # the playout that sends the class knows better than Redis
    try:
        return decide_account.with_status(found, readers.words(here[0].settings), made_at), None
    except LecternError as error:
        old = Text("What is said of the streamer is what its rows say, and may be old.")
        parts = [error.message, old] if found.cited else [error.message]
        return decide_account.with_status(found, None), joined(parts, BESIDE)


def lines(thing: str, known: Account, following: Sequence[str], language: str = "en") -> list[str]:
    """The account as lines for people."""
    translate = partial(translated, language=language)
    t = translator(language)
    said = [painted(thing, "bold")] if known.header else []
    for what, text in known.header:
        colour = COLOURS.get(known.standing) if what == "state" else None
        said.append(f"  {padded(t(what), 12)}{painted(translate(text), colour)}")
    said += ["", *(one.written(translate) for one in known.story)]
    return said + [painted(f"--> {translate(one)}", "bold") for one in following]
