"""``lectern reload``: the resident process reads its settings anew, without a restart."""

from typing import Annotated

import httpx
import typer

from lectern.cli import doctor
from lectern.cli.options import Json, Role, say, settings_of
from lectern.errors import LecternError, Misuse
from lectern.settings import Settings

app = typer.Typer()
ANSWER_S = 30.0


@app.command()
def reload(
    role: Annotated[Role | None, typer.Argument(help="The role, if this host has both.")] = None,
    as_json: Json = False,
) -> None:
    """Have this host's resident process read its settings anew; if one is wrong, nothing is changed.

    A line for each change says from when on it counts. SIGHUP does the same.
    """
    for each in doctor.roles(role, "reload"):
        answer = _asked(settings_of(each))
        lines = [f"{each}: {line}" for line in answer["said"]] or [f"{each}: no setting has changed"]
        say(as_json, {"role": str(each), **answer}, lines)


def _asked(settings: Settings) -> dict[str, list[str]]:
    """The answer of the process; raises Misuse if it refuses, LecternError if it cannot be asked."""
    if not settings.bind or settings.bind.endswith(":0"):
        raise Misuse(
            f"The {settings.role} answers nowhere, by its settings. Send its process SIGHUP instead, and read its log."
        )
    try:
        answer = httpx.post(f"http://{settings.bind}/reload", timeout=ANSWER_S, trust_env=False)
        said: dict[str, list[str]] = answer.json()
        refused = said.get("error")
    except (httpx.HTTPError, ValueError, AttributeError) as error:
        raise LecternError(
            f"http://{settings.bind}/reload does not answer: {error}. Does lectern-{settings.role} run? If you have "
            f"just changed this address, restart it."
        ) from error
    if refused or not answer.is_success:
        raise Misuse(f"{refused or answer.status_code}. Nothing is changed.".replace("..", "."))
    return said
