"""``lectern rollout STEP``: reads what is wanted from standard input, prints one JSON object.

What a step needs is imported when it is called: the other commands of `lectern` start without it.
"""

# ruff: noqa: FBT002, PLC0415 (an option of the command line is a boolean with a name; imports: see above)
import gc
import json
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import reduce
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from lectern.errors import LecternError, Misuse
from lectern.i18n import ENGLISH

if TYPE_CHECKING:
    from lectern.rollout.result import StepAnswer
    from lectern.rollout.spec import Installed, Spec

app = typer.Typer(
    no_args_is_help=True,
    help="Roll a release out on this host, or back. What is wanted comes as a JSON object on standard input.",
)

Check = Annotated[bool, typer.Option("--check", help="Say what would be done, change nothing.")]
_STANDS = "What was rolled out here last: only role, root and version are read."
Stands = Annotated[bool, typer.Option("--standing", help=_STANDS)]


@app.command()
def preflight(check: Check = False) -> None:
    """Say how far this host is, what a rollout would do, and all that is in its way; changes nothing."""
    from lectern.rollout import preflight as rollout_preflight

    _answer(lambda wanted: rollout_preflight.preflight(wanted, check=check))


@app.command()
def backup(check: Check = False) -> None:
    """Back up the code folder and the database while the old program works, and prove the backup."""
    from lectern.rollout import steps
    from lectern.rollout.backup import host

    _answer(lambda wanted: host.make(wanted, check=check, files_only=steps.checked(wanted).is_reload))


@app.command(name="open")
def open_(
    check: Check = False,
    by_hand: Annotated[bool, typer.Option("--by-hand", help="A person confirms each task: wait for them.")] = False,
) -> None:
    """Leave a process on this host that does the tasks of the window as they are asked for, and goes on by itself."""
    from lectern.rollout import steps, window

    _answer(lambda wanted: steps.plan(steps.checked(wanted)) if check else window.open_(wanted, by_hand=by_hand))


@app.command()
def playout(check: Check = False) -> None:
    """Let the playout be of the release that is at work, by a hand-over that no class notices."""
    from lectern.rollout import on_air

    _answer(lambda wanted: on_air.upgrade_playout(wanted, check=check))


@app.command()
def ended(task: str, check: Check = False) -> None:  # noqa: ARG001 (it changes nothing anyway; all steps take it)
    """Say what became of a TASK of the window when the process that did it is no longer there."""
    from lectern.rollout import window

    _answer_standing(lambda asked: window.ended(asked, task))


@app.command()
def rollback(check: Check = False, stands: Stands = False) -> None:
    """Take the rollout back, from wherever it has come to."""
    from lectern.rollout import rollback

    if stands:
        _answer_standing(lambda asked: rollback.of_standing(asked, check=check))
    _answer(lambda wanted: rollback.run(wanted, check=check))


@app.command()
def verify(check: Check = False, stands: Stands = False) -> None:  # noqa: ARG001 (it changes nothing anyway)
    """Look whether all is as the last step should have left it; changes nothing."""
    from lectern.rollout import verify
    from lectern.rollout.journal import looked_at

    if stands:
        _answer_standing(lambda asked: verify.run(looked_at(asked)))
    _answer(verify.run)


def _answer(step: "Callable[[Spec], StepAnswer]") -> NoReturn:
    """Do *step* with the wanted state of this host, and print its answer."""
    from lectern.rollout.journal import named
    from lectern.rollout.spec import Spec

    def read() -> dict[str, Any]:
        wanted = named(Spec.parse(sys.stdin.read()))
        languages.append(wanted.env.get("LECTERN_LANG", ENGLISH))
        return step(wanted).to_dict()

    languages = [ENGLISH]
    _print_fields(read, languages=languages)


def _answer_standing(step: "Callable[[Installed], StepAnswer]") -> NoReturn:
    """Do *step* with what stands on this host, and print its answer without the secrets, which nobody else knows."""
    from lectern.rollout.spec import Installed

    text = sys.stdin.read()
    secrets = _secrets(text)  # before the step, which may rename a backup
    _print_fields(lambda: step(Installed.parse(text)).to_dict(), secrets)


def _secrets(text: str) -> set[str]:
    """What is blotted out of the answer to the JSON *text*: the secrets of every rollout of this role on the host."""
    from lectern.rollout import env_file
    from lectern.rollout.spec import WANTED, Installed, Spec

    texts: set[str] = set()
    with suppress(LecternError):  # what cannot be read is the answer's business
        asked = Installed.parse(text)
        for file in asked.backups_dir.glob(f"{asked.role}-*/{WANTED}"):
            with suppress(LecternError, OSError):
                wanted = Spec.of_backup(file.parent)
                texts |= env_file.secrets({**wanted.env, "REDIS_URL": wanted.redis_url})
    return texts


def _print_fields(
    read: Callable[[], dict[str, Any]], secrets: Collection[str] = (), languages: Sequence[str] = (ENGLISH,)
) -> NoReturn:
    """Print what is *read*, in the last of *languages*; a failure, too, with exit code 1, or 2 for misuse."""
    from lectern.rollout.result import failure, in_language

    gc.freeze()
    gc.enable()  # all that the step needs is imported
    try:
        fields, code = read(), 0
    except (LecternError, OSError) as error:
        fields, code = failure(error), 2 if isinstance(error, Misuse) else 1
    printed = _masked(in_language(fields, languages[-1]), sorted(secrets, key=len, reverse=True))
    typer.echo(json.dumps(printed))
    raise typer.Exit(code)


def _masked(value: Any, secrets: Sequence[str]) -> Any:  # noqa: ANN401 (any JSON)
    """*value* with each of *secrets* blotted out of its texts."""
    if isinstance(value, dict):
        return {name: _masked(item, secrets) for name, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, secrets) for item in value]
    if isinstance(value, str):
        return reduce(lambda text, secret: text.replace(secret, "********"), secrets, value)
    return value
