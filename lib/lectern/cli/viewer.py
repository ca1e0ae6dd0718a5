"""``lectern viewer`` and ``client``: who may look at the teacher's page, and who may use its HTTP API."""

import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from lectern import formatting
from lectern.cli import readers
from lectern.cli.options import Json, say, typed
from lectern.db import viewers
from lectern.db.engine import open_database, writing
from lectern.errors import Misuse
from lectern.model.tables.teacher import ViewerRow
from lectern.states import Right
from lectern.wire.fields import is_name

app = typer.Typer()
viewer = typer.Typer(no_args_is_help=True, help="Who may look at the teacher's page.")
client = typer.Typer(no_args_is_help=True, help="Which programs may use the teacher's HTTP API.")
app.add_typer(viewer, name="viewer")
app.add_typer(client, name="client")
Institution = Annotated[str | None, typer.Option("--institution", help="The classes of this institution alone.")]
_CLIENT_RIGHTS = (Right.BOOK, Right.READ)
May = Annotated[str, typer.Option("--may", help="What it may do: book, read, or both with a comma between them.")]


@viewer.command("add")
def add_viewer(name: str, institution: Institution = None, as_json: Json = False) -> None:
    """Make a token; it is printed once, and nobody can read it again."""
    found = _made(name, institution, Right.LOOK)
    found["url"] = f"{found['url']}/?token={found['token']}"
    lines = [f"{name} sees {_of(institution)} at {found['url']}"]
    say(as_json, found, [*lines, "In a calendar: the same address with /timetable.ics before the ?."])


@client.command("add")
def add_client(name: str, institution: Institution = None, may: May = "book,read", as_json: Json = False) -> None:
    """Make a token; it is printed once, and nobody can read it again."""
    rights = [one.strip() for one in may.split(",")]
    if not set(rights) <= set(_CLIENT_RIGHTS):
        raise Misuse("--may {may!r:.60}: write book, read, or book,read", may=may)
    found = _made(name, institution, ",".join(one for one in _CLIENT_RIGHTS if one in rights))
    found["may"] = rights
    lines = [f"{name} may {' and '.join(rights)} {_of(institution)} at {found['url']}/v1 with this header:"]
    say(as_json, found, [*lines, f"Authorization: Bearer {found['token']}"])


def _made(name: str, institution: str | None, may: str) -> dict[str, Any]:
    for what in (name, institution):
        if what is not None and not is_name(what):  # an empty institution is no institution, not all of them
            raise Misuse("{what!r}: use 1 to 250 of the characters A-Z a-z 0-9 _ . : -", what=what)
    settings = readers.teacher().settings  # raises Misuse if there is no database
    with writing(open_database(settings.database_url), "teacher") as connection:
        token = viewers.make(connection, name, institution, time.time(), may)
    return {"name": name, "institution": institution, "token": token, "url": f"http://{settings.bind}"}


def _of(institution: str | None) -> str:
    return f"the classes of {institution}" if institution is not None else "everything"


@viewer.command("revoke")
def revoke_viewer(name: str) -> None:
    """Let a viewer look no longer."""
    _revoke(name, looks=True)
    print(f"{name}: may look no longer")


@client.command("revoke")
def revoke_client(name: str) -> None:
    """Let a client use the API no longer."""
    _revoke(name, looks=False)
    print(f"{name}: may use the API no longer")


def _revoke(name: str, *, looks: bool) -> None:
    with writing(open_database(readers.teacher().settings.database_url), "teacher") as connection:
        viewers.revoke(connection, typed(name), looks=looks)


@viewer.command("ls")
def list_viewers(as_json: Json = False) -> None:
    """Who may look, and at what."""
    _list("viewer", lambda _: "", as_json)


@client.command("ls")
def list_clients(as_json: Json = False) -> None:
    """Which programs may use the API, and for what."""
    _list("client", lambda one: f"may {one.may}  ", as_json)


def _list(command: str, rights: Callable[[ViewerRow], str], as_json: bool) -> None:
    with readers.teacher().looking() as connection:
        found = viewers.everybody(connection, looks=command == "viewer")
    lines = [
        f"{one.name}  {one.institution_id or 'everything'}  {rights(one)}since {formatting.moment(one.made_at)}"
        for one in found
    ]
    say(
        as_json,
        {f"{command}s": [vars(one) for one in found]},
        lines or [f"Nobody; make a token: lectern {command} add NAME"],
    )
