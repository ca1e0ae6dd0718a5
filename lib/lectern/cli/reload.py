"""``lectern reload``: the resident process reads its settings anew, without a restart."""

from typing import Annotated

import typer

from lectern import health
from lectern.cli import doctor
from lectern.cli.options import Json, Role, say, settings_of
from lectern.errors import Misuse
from lectern.i18n import Text, labelled, translated

app = typer.Typer()


@app.command()
def reload(
    role: Annotated[Role | None, typer.Argument(help="The role, if this host has both.")] = None,
    as_json: Json = False,
) -> None:
    """Have this host's resident process read its settings anew; if one is wrong, nothing is changed.

    A line for each change says from when on it counts. SIGHUP does the same.
    """
    for each in doctor.roles(role, "reload"):
        settings = settings_of(each)
        bind = settings.bind
        if not bind or bind.endswith(":0"):
            raise Misuse(
                Text(
                    "The {role} answers nowhere, by its settings. Send its process SIGHUP instead, and read its log.",
                    role=each,
                )
            )
        answer = health.reloaded(f"http://{bind}", f"lectern-{each}")
        lines = health.sentences(answer) or [Text("no setting has changed")]
        said = [translated(labelled(each, line), settings.lectern_lang) for line in lines]
        say(as_json, {"role": str(each), **answer}, said)
