"""``lectern viewer`` and ``client``: who may look at the teacher's page, and who may use its HTTP API."""

import time
from typing import Annotated, Any

import typer

from lectern import formatting
from lectern.cli import readers
from lectern.cli.options import Json, say, typed
from lectern.db import viewers
from lectern.db.engine import open_database, writing
from lectern.errors import Misuse
from lectern.i18n import Text
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
    page, query = found["url"], f"?token={found['token']}"
    found["url"] = f"{page}/{query}"
    lines = [f"{name} sees {_of(institution)} at {found['url']}"]
    say(as_json, found, [*lines, f"In a calendar: {page}/timetable.ics{query}"])


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
    if not settings.bind:  # a token is shown once, with the address at which it can be used
        raise Misuse(Text("This teacher has no page and no HTTP API, because API_BIND is empty. No token was made."))
    with writing(open_database(settings.database_url), "teacher") as connection:
        token = viewers.make(connection, name, institution, time.time(), may)
    return {"name": name, "institution": institution, "token": token, "url": f"http://{settings.bind}"}


def _of(institution: str | None) -> str:
    return f"the classes of {institution}" if institution is not None else "everything"


def _looks(context: typer.Context) -> bool:
    """Whether the command is one of `lectern viewer`, not of `lectern client`."""
    return context.command_path.split()[-2] == "viewer"


@viewer.command("revoke", help="Let a viewer look no longer.")
@client.command("revoke", help="Let a client use the API no longer.")
def revoke(context: typer.Context, name: str) -> None:
    """Take away a token."""
    with writing(open_database(readers.teacher().settings.database_url), "teacher") as connection:
        viewers.revoke(connection, typed(name), looks=_looks(context))
    print(f"{name}: may {'look' if _looks(context) else 'use the API'} no longer")


@viewer.command("ls", help="Who may look, and at what.")
@client.command("ls", help="Which programs may use the API, and for what.")
def list_tokens(context: typer.Context, as_json: Json = False) -> None:
    """List who has a token."""
    looks, command = _looks(context), "viewer" if _looks(context) else "client"
    with readers.teacher().looking() as connection:
        found = viewers.everybody(connection, looks=looks)
    lines = []
    for one in found:
        sees = f"{one.institution_id or 'everything'}{'' if looks else f'  may {one.may}'}"
        lines.append(f"{one.name}  {sees}  since {formatting.moment(one.made_at)}")
    nobody = [f"Nobody; make a token: lectern {command} add NAME"]
    say(as_json, {f"{command}s": [one.model_dump(exclude={"digest"}) for one in found]}, lines or nobody)
