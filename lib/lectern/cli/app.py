"""All commands together, and how an error is said."""

import sys

import typer

from lectern.cli import look, playout, serving, wire
from lectern.errors import LecternError, Misuse
from lectern.rollout import commands as rollout

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Airs recorded lessons as live classes. Settings come from the environment and .env; see README.md.",
)
for part in (serving.app, look.app, wire.app):
    app.add_typer(part)
app.add_typer(rollout.app, name="rollout")
app.add_typer(playout.app, name="playout")


def main() -> None:
    """Do what was typed: an error is one sentence and what to do; misuse exits with 2."""
    try:
        app()
    except Misuse as error:
        sys.exit(_complain(error, 2))
    except LecternError as error:
        sys.exit(_complain(error, 1))


def _complain(error: LecternError, status_code: int) -> int:
    print(f"lectern: {error}", file=sys.stderr)
    return status_code
