"""``lectern preview``: what to play or open to see a class that is on air."""

import json
import shlex
import time
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

import typer

from lectern.cli import readers
from lectern.cli.explain import looked_up
from lectern.cli.options import Json, say, typed
from lectern.cli.readers import Place
from lectern.db import account as db_account
from lectern.db import airings
from lectern.decide import account as decide_account
from lectern.decide.account import Standing
from lectern.errors import LecternError, Misuse
from lectern.i18n import Text
from lectern.settings import StreamerSettings, TeacherSettings
from lectern.urls import redact_url
from lectern.wire.fields import BACKUP

app = typer.Typer()
WithKey = Annotated[
    bool, typer.Option("--with-key", help="Show the push URL whole: whoever has its key can push, too.")
]


@app.command()
def preview(class_id: str, with_key: WithKey = False, as_json: Json = False) -> None:
    """What to play or open to see a class that is on air.

    The ffplay line plays what is pushed, where the live service plays a stream at the URL that takes it. On the
    teacher's host there are also the address of the class on the page and of its picture.
    """
    here, class_id = readers.here(), typed(class_id)
    on_air = [one for one in (class_id, f"{class_id}{BACKUP}") if _is_on_air(here, one, must_be=one == class_id)]
    pushed = [url for url in (_push_url(here, one) for one in on_air) if url]
    play = [f"ffplay {shlex.quote(url if with_key else redact_url(url))}" for url in pushed]
    base = next((one.settings.bind for one in here if isinstance(one.settings, TeacherSettings)), "")
    id_ = quote(class_id, safe="")
    shown = {"page": f"http://{base}/class/{id_}", "still": f"http://{base}/still/{id_}.jpg"} if base else {}
    lines = [*play, *(f"{f'{name}:':7}{url}" for name, url in shown.items())]
    if pushed and not with_key:
        lines.append(f"The URL stops before the stream's key; whole it is in: lectern preview {class_id} --with-key")
    if shown:
        lines.append("The page asks for a token, which this makes: lectern viewer add NAME")
    say(as_json, {"class_id": class_id, "play": play, **shown}, lines)


def _is_on_air(here: Sequence[Place[Any]], class_id: str, *, must_be: bool) -> bool:
    """Whether the class is on air; if it *must be* and is not, raises what to type."""
    now = time.time()
    found, trouble = looked_up(here, class_id, now)
    if must_be and (found.booked or found.cited) is None:
        raise Misuse(
            Text(
                "{class_id}: no such class is known here. What is on air, and comes next, says: lectern status",
                class_id=class_id,
            )
        )
    standing = decide_account.standing(found, now)
    if must_be and standing is not Standing.ON_AIR:
        state = ". ".join(one for one in (decide_account.state_sentence(found, standing, now), trouble) if one)
        raise LecternError(
            Text(
                "{class_id}: nothing to see: {state}. For more, type: lectern explain {class_id}",
                class_id=class_id,
                state=state.rstrip("."),
            )
        )
    return standing is Standing.ON_AIR


def _push_url(here: Sequence[Place[Any]], class_id: str) -> str | None:
    """Where the class is pushed to, with its secrets; None if that is not known."""
    for place in here:
        with place.looking() as connection:
            if isinstance(place.settings, StreamerSettings):
                airing = airings.by_id(connection, [class_id]).get(class_id)
                url = airing.push_url if airing is not None else None
            else:
                order = db_account.booking(connection, class_id)
                url = json.loads(order.payload).get("push_url") if order is not None else None
        if url:
            return str(url)
    return None
