"""``lectern explain`` and ``preview``: how a class stands, what happened to it, what comes; what to play to see it."""

import asyncio
import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

import typer

from lectern.cli import readers
from lectern.cli.options import Json, painted, say, typed
from lectern.cli.readers import Place
from lectern.db import account as db_account
from lectern.db import airings, forecast, leases, transcodings
from lectern.decide import account as decide_account
from lectern.decide.account import Account, Standing
from lectern.errors import LecternError, Misuse
from lectern.formatting import padded
from lectern.i18n import BESIDE, Text, joined, msgid, translated, translator
from lectern.model.views import ClassView, EventView, Sending
from lectern.playout import control_socket as playout
from lectern.settings import StreamerSettings, TeacherSettings
from lectern.states import AiringState
from lectern.urls import redact_url
from lectern.wire.fields import BACKUP

app = typer.Typer()
_WithKey = Annotated[bool, typer.Option("--with-key", help="Show the push URL whole: whoever has its key can push.")]
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
    here, wrong = readers.here()
    found, trouble = looked_up(here, thing, now)
    known = decide_account.account(found, now)
    if not found.events and not known.header and not known.following:
        text = msgid("{thing}: nothing is known of it here. Is it the class_id or record_id, and the right host?")
        raise Misuse(joined((Text(text, thing=thing), *trouble, *wrong), BESIDE))
    known = replace(known, following=(*known.following, *trouble, *wrong))
    fields = decide_account.fields(found, known)
    language = here[0].settings.lectern_lang
    told = lines(thing, known, language)
    second = f"{thing}{BACKUP}"
    other, _ = looked_up(here, second, now)
    if other.events:
        account = decide_account.account(other, now)
        fields["backup"] = decide_account.fields(other, account)
        told += ["", *lines(second, account, language)]
    print(json.dumps(fields) if as_json else "\n".join(told), flush=True)


def looked_up(here: Sequence[Place[Any]], thing: str, now: float) -> tuple[ClassView, list[str]]:
    """What is known of *thing* here, and sentences on what could not be asked; raises LecternError if nothing could."""
    teacher = streamer = None
    made_at: dict[str, float] = {}
    trouble: list[str] = []
    for place in here:
        try:
            with place.looking() as connection:
                if isinstance(place.settings, StreamerSettings):
                    name = leases.last_name(connection) or place.settings.name  # that of `serve --name` is nowhere else
                    streamer = db_account.at_streamer(connection, name, thing)
                    if streamer.cited is not None and streamer.cited.state is AiringState.WAITING:
                        _, ready_by = forecast.waiting(connection, place.settings, now).get(thing, (None, None))
                        streamer = replace(streamer, ready_by=ready_by)
                else:
                    teacher = db_account.at_teacher(connection, place.settings.name, thing)
                    if decide_account.is_to_be_made(teacher.booked):
                        made_at = transcodings.made_at(connection, place.settings, now)
        except LecternError as error:
            trouble.append(error.message)
            if len(trouble) == len(here):
                raise
    found = decide_account.gathered(teacher, streamer)
    if found.booked is None and found.cited is None:
        return found, trouble
    if found.cited is not None and found.cited.start_time <= now < found.cited.end_time:
        asked = _playout_says(here, thing, found.events)
        return replace(found, sending=asked), trouble  # the playout that sends the class knows better than Redis
    try:
        return decide_account.with_status(found, readers.words(here[0].settings), made_at), trouble
    except LecternError as error:
        old = Text("What is said of the streamer is what its rows say, and may be old.")
        parts = [error.message, old] if found.cited else [error.message]
        return decide_account.with_status(found, None), [joined(parts, BESIDE), *trouble]


def _playout_says(here: Sequence[Place[Any]], class_id: str, events: Sequence[EventView]) -> Sending:
    """How the playout of this streamer sends a class; its *events* say why something was not sent."""
    socket = next(one.settings.playout_socket_path for one in here if isinstance(one.settings, StreamerSettings))
    try:
        answer = asyncio.run(asyncio.wait_for(playout.asked(socket, "status", class_id=class_id), readers.LOOK_S))
    except (playout.PlayoutUnreachable, playout.RequestRefused, TimeoutError) as error:
        return decide_account.without_playout(str(error) or "no answer in time")
    classes = answer["classes"]
    return decide_account.of_playout(classes[0], time.time(), events) if classes else decide_account.NOT_IN_PLAYOUT


def lines(thing: str, known: Account, language: str = "en") -> list[str]:
    """The account as lines for people."""
    translate = partial(translated, language=language)
    t = translator(language)
    said = [painted(thing, "bold")] if known.header else []
    for what, text in known.header:
        colour = COLOURS.get(known.standing) if what == "state" else None
        said.append(f"  {padded(t(what), 12)}{painted(translate(text), colour)}")
    said += [""] if said else []
    said += [one.written(translate) for one in known.story]
    return said + [painted(f"--> {translate(one)}", "bold") for one in known.following]


@app.command()
def preview(class_id: str, with_key: _WithKey = False, as_json: Json = False) -> None:
    """What to play or open to see a class that is on air.

    The ffplay line plays what is pushed, where the live service plays a stream at the URL that takes it. On the
    teacher's host there are also the address of the class on the page and of its picture.
    """
    (here, _), class_id = readers.here(), typed(class_id)
    on_air = [one for one in (class_id, f"{class_id}{BACKUP}") if _is_on_air(here, one, must_be=one == class_id)]
    pushed = [url for url in (_push_url(here, one) for one in on_air) if url]
    play = [f"ffplay {shlex.quote(url if with_key else redact_url(url))}" for url in pushed]
    base = next((one.settings.bind for one in here if isinstance(one.settings, TeacherSettings)), "")
    id_ = quote(class_id, safe="")
    shown = {"page": f"http://{base}/class/{id_}", "still": f"http://{base}/still/{id_}.jpg"} if base else {}
    written = [*play, *(f"{f'{name}:':7}{url}" for name, url in shown.items())]
    if pushed and not with_key:
        written.append(f"The URL stops before the stream's key; whole it is in: lectern preview {class_id} --with-key")
    if shown:
        written.append("The page asks for a token, which this makes: lectern viewer add NAME")
    say(as_json, {"class_id": class_id, "play": play, **shown}, written)


def _is_on_air(here: Sequence[Place[Any]], class_id: str, *, must_be: bool) -> bool:
    """Whether the class is on air; if it *must be* and is not, raises what to type."""
    now = time.time()
    found, trouble = looked_up(here, class_id, now)
    if must_be and (found.booked or found.cited) is None:
        raise Misuse(
            "{class_id}: no such class is known here. What is on air, and comes next, says: lectern status",
            class_id=class_id,
        )
    standing = decide_account.standing(found, now)
    if must_be and standing is not Standing.ON_AIR:
        state = ". ".join((decide_account.state_sentence(found, standing, now), *trouble))
        raise LecternError(
            "{class_id}: nothing to see: {state}. For more, type: lectern explain {class_id}",
            class_id=class_id,
            state=state.rstrip("."),
        )
    return standing is Standing.ON_AIR


def _push_url(here: Sequence[Place[Any]], class_id: str) -> str | None:
    """Where the class is pushed to, with its secrets; None if that is not known."""
    url: str | None = None
    for place in here:
        with place.looking() as connection:
            if isinstance(place.settings, StreamerSettings):
                airing = airings.by_id(connection, [class_id]).get(class_id)
                url = url or (airing.push_url if airing is not None else None)
            elif (order := db_account.booking(connection, class_id)) is not None:
                url = url or json.loads(order.payload).get("push_url")
    return url
