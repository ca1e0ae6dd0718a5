"""``lectern viewer``: who may look at the teacher's page."""

import time
from typing import Annotated

import typer

from lectern import formatting
from lectern.cli import readers
from lectern.cli.options import Json, say, typed
from lectern.db import viewers
from lectern.db.engine import looking, open_database, writing
from lectern.errors import Misuse
from lectern.wire.fields import is_name

app = typer.Typer(no_args_is_help=True, help="Who may look at the teacher's page.")
Institution = Annotated[str | None, typer.Option("--institution", help="See the classes of this institution alone.")]


@app.command()
def add(name: str, institution: Institution = None, as_json: Json = False) -> None:
    """Make a token; it is printed once, and nobody can read it again."""
    for what in (name, institution):
        if what is not None and not is_name(what):  # an empty institution is no institution, not all of them
            raise Misuse(f"{what!r}: use 1 to 250 of the characters A-Z a-z 0-9 _ . : -")
    settings = readers.teacher().settings  # raises Misuse if there is no database
    with writing(open_database(settings.database_url), "teacher") as connection:
        token = viewers.make(connection, name, institution, time.time())
    url = f"http://{settings.bind}/?token={token}"
    what = f"the classes of {institution}" if institution is not None else "everything"
    lines = [f"{name} sees {what} at {url}", "In a calendar: the same address with /timetable.ics before the ?."]
    say(as_json, {"name": name, "institution": institution, "token": token, "url": url}, lines)


@app.command()
def revoke(name: str) -> None:
    """Let a viewer look no longer."""
    with writing(open_database(readers.teacher().settings.database_url), "teacher") as connection:
        viewers.revoke(connection, typed(name))
    print(f"{name}: may look no longer")


@app.command()
def ls(as_json: Json = False) -> None:
    """Who may look, and at what."""
    place = readers.teacher()
    with looking(place.engine, "teacher") as connection:
        found = viewers.everybody(connection)
    seen = {one.name: "everything" if one.institution_id is None else one.institution_id for one in found}
    lines = [f"{one.name}  {seen[one.name]}  since {formatting.moment(one.made_at)}" for one in found]
    say(as_json, {"viewers": [vars(one) for one in found]}, lines or ["Nobody; make a token: lectern viewer add NAME"])
