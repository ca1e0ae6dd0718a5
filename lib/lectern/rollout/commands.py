"""``lectern rollout STEP``: reads what is wanted from standard input, prints one JSON object.

What a step needs is imported when it is called: the other commands of `lectern` start without it.
"""

# ruff: noqa: FBT002, PLC0415 (an option of the command line is a boolean with a name; imports: see above)
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lectern.errors import CallAPerson, LecternError, Misuse

if TYPE_CHECKING:
    from lectern.rollout.answer import Answer
    from lectern.rollout.wanted import Wanted

app = typer.Typer(
    no_args_is_help=True,
    help="Roll a release out on this host, or back. What is wanted comes as a JSON object on standard input.",
)

Check = Annotated[bool, typer.Option("--check", help="Say what would be done, change nothing.")]
Last = Annotated[
    bool, typer.Option("--last", help="Take back what was rolled out on this host last, whatever is wanted now.")
]


@app.command()
def preflight(check: Check = False) -> None:
    """Say how far this host is, what a rollout would do, and all that is in its way; changes nothing."""
    from lectern.rollout import gates

    _answer(lambda wanted: gates.preflight(wanted, check=check))


@app.command()
def backup(check: Check = False) -> None:
    """Back up the code folder and the database while the old program works, and prove the backup."""
    from lectern.rollout.backup import make

    _answer(lambda wanted: make.make(wanted, check=check))


@app.command()
def window(check: Check = False) -> None:
    """Stop, switch and start again; undone by itself where anything fails."""
    from lectern.rollout import gates, window

    _answer(gates.window_check if check else window.run)


@app.command()
def rollback(check: Check = False, last: Last = False) -> None:
    """Take the rollout back, from wherever it has come to."""
    from lectern.rollout import rollback

    _answer(lambda wanted: rollback.run(rollback.last_one(wanted) if last else wanted, check=check))


@app.command()
def verify(check: Check = False) -> None:  # noqa: ARG001 (it changes nothing anyway; all steps take it)
    """Look whether all is as the last step should have left it; changes nothing."""
    from lectern.rollout import verify

    _answer(verify.run)


@app.command()
def status(check: Check = False) -> None:  # noqa: ARG001 (it changes nothing anyway; all steps take it)
    """What the journal says, for people."""
    from lectern.rollout import verify

    _answer(verify.status)


def _answer(step: "Callable[[Wanted], Answer]") -> None:
    """Do *step* and print its answer; a failure is one too, with exit code 1, or 2 where it was called wrongly."""
    from lectern.rollout.wanted import Wanted

    try:
        fields, code = step(Wanted.parse(sys.stdin.read())).to_dict(), 0
    except (LecternError, OSError) as error:
        fields, code = _failure(error), 2 if isinstance(error, Misuse) else 1
    _print(fields)
    raise typer.Exit(code)


def _failure(error: LecternError | OSError) -> dict[str, Any]:
    if isinstance(error, OSError):
        error = CallAPerson(
            f"{error.filename or 'the system'}: {error.strerror or error}. Mend it, then run this again."
        )
    answer: Answer | None = getattr(error, "answer", None)
    fields = answer.to_dict() if answer is not None else {"changed": False, "said": []}
    return {**fields, "failed": True, "msg": error.message}


def _print(fields: dict[str, Any]) -> None:
    """Print the answer; where nobody listens any more, what was done is done all the same."""
    try:
        sys.stdout.write(json.dumps(fields) + "\n")
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter tries once more
