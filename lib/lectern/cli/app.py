"""All commands, each loaded when it is typed; and the printing of errors."""

import errno
import gc
import io
import os
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

import lectern
from lectern.errors import LecternError, Misuse

COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("lectern.cli.serving", "Run this host's resident process until SIGTERM."),
    "status": ("lectern.cli.status", "How things stand: what is on air, what comes next, what waits."),
    "explain": ("lectern.cli.explain", "What happened to a class or a record, and what comes next or is to be typed."),
    "preview": ("lectern.cli.explain", "What to play or open to see a class that is on air."),
    "report": ("lectern.cli.report", "What was planned and what was really sent, class by class; csv, json or html."),
    "doctor": ("lectern.cli.doctor", "Look at all that this host needs; a line each, with what to type."),
    "reload": ("lectern.cli.serving", "Have this host's process read its settings anew, without a restart."),
    "book": ("lectern.cli.booking", "Book a class by hand."),
    "change": ("lectern.cli.booking", "Change a booked class by hand, also while it is on air."),
    "cancel": ("lectern.cli.booking", "Cancel a class by hand."),
    "cache": ("lectern.cli.streamer", "A streamer's cache."),
    "init": ("lectern.cli.serving", "Migrate this host's database and make its deployments; safe to repeat."),
    "deploy": ("lectern.cli.serving", "Make this host's deployments in Prefect, and nothing else."),
    "alarm": ("lectern.cli.doctor", "Whether alarms reach people."),
    "viewer": ("lectern.cli.viewer", "Who may look at the teacher's page."),
    "client": ("lectern.cli.viewer", "Which programs may use the teacher's HTTP API."),
    "rekey": ("lectern.cli.backup", "Rename Redis keys by rules, never over another key."),
    "backup": ("lectern.cli.backup", "Back a database up while it is at work, and prove the backup."),
    "playout": ("lectern.cli.playout", "The process that airs classes; its status, and its upgrade."),
    "drain": ("lectern.cli.streamer", "Move a streamer's classes to others, and wait for the last one on air."),
    "rollout": ("lectern.rollout.commands", "The steps of a rollout on this host; playbooks type them."),
}
"""Each command: the module whose ``app`` has it, and its help. A module is imported only when its command is typed,
because importing all of them takes seconds."""

EXAMPLES = {
    "serve": "lectern serve streamer --name streamer1",
    "status": "lectern status --watch",
    "explain": "lectern explain c-1001",
    "preview": "lectern preview c-1001 --with-key",
    "report": "lectern report --from 2026-11-01 --to 2026-11-30 --institution i-7 > november.csv",
    "doctor": "lectern doctor streamer",
    "reload": "lectern reload streamer",
    "book": "lectern book --example > booking.json; lectern book booking.json --wait",
    "change": "lectern change c-1001 --end 2026-11-26T19:45 --wait",
    "cancel": "lectern cancel c-1001",
    "cache ls": "lectern cache ls --json",
    "cache evict": "lectern cache evict 6666_720P",
    "cache reconcile": "lectern cache reconcile",
    "init": "lectern init teacher",
    "deploy": "lectern deploy streamer --check",
    "alarm test": "lectern alarm test",
    "viewer add": "lectern viewer add school-7 --institution i-7",
    "viewer revoke": "lectern viewer revoke school-7",
    "viewer ls": "lectern viewer ls",
    "client add": "lectern client add platform --may book,read",
    "client revoke": "lectern client revoke platform",
    "client ls": "lectern client ls",
    "rekey": "lectern rekey --rule 'waiting:{class_id}=>class:{class_id}' --dry-run",
    "backup": "lectern backup teacher --to sftp://backup@10.0.0.9/lectern",
    "playout": "lectern playout --dir /var/lib/lectern/playout status",
    "playout status": "lectern playout status --json",
    "playout upgrade": "lectern playout upgrade",
    "drain": "lectern drain --within 7200",
}
"""A line to type for each command that people type, which stands at the end of its help."""

LOAD_MORE = ("serve", "init", "deploy", "rollout")
"""Commands that import more when they are called, and then turn the garbage collector on."""


class Commands(TyperGroup):
    """The commands of the table; ``lectern --help`` loads none of them."""

    def __init__(self, **attrs: Any) -> None:  # noqa: ANN401 (whatever typer gives)
        super().__init__(**attrs)
        names: Any = dict.fromkeys(COMMANDS)  # for the suggestion to a person who mistypes a name
        self.commands.update(names)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 (typer's own class of a context is private)
        """The names of the commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 (as above)
        """The command *cmd_name*; None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        app: typer.Typer = import_module(COMMANDS[cmd_name][0]).app
        app.rich_markup_mode = None  # the help of all commands is as plain as that of `lectern`
        loaded = typer.main.get_group(app)
        if cmd_name not in LOAD_MORE:
            gc.freeze()
            gc.enable()
        found = loaded.commands.get(cmd_name, loaded)
        named = {cmd_name: found}
        for part, command in getattr(found, "commands", {}).items():
            command.short_help = (command.help or "").partition("\n\n")[0]  # whole, where a list would cut it off
            named[f"{cmd_name} {part}"] = command
        for name in named.keys() & EXAMPLES.keys():
            named[name].epilog = f"\b\nExample:\n  {EXAMPLES[name]}"
        return found

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 (as above)
        """Write the table's lines."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, what) for name, (_, what) in COMMANDS.items()])


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Airs recorded lessons as live classes. Settings come from the environment, from settings.env and .env; see"
    " README.md.",
)

_OUTPUT_LOST = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"lectern {lectern.__version__}")  # looked up only now: all else that is typed starts without it
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", help="Say which release.", callback=_say_version, is_eager=True),
) -> None:
    """Options of `lectern` itself."""


def main() -> None:
    """Run what was typed; print an error as one sentence with what to do. Misuse exits with 2, other errors with 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack the letters of a name, and some are no UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            app(prog_name="lectern")
        finally:
            sys.stdout.flush()  # at Python's own exit nobody could say why it failed
    except LecternError as error:
        sys.exit(_complain(error, 2 if isinstance(error, Misuse) else 1))
    except OSError as error:
        if error.filename is not None:  # it is closed to who types this, or its disk takes nothing
            thing = error.filename2 or error.filename
            sys.exit(_complain(LecternError("{thing}: {what}", thing=thing, what=error.strerror), 1))
        if error.errno not in _OUTPUT_LOST:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python writes once more
        if error.errno == errno.EPIPE:
            sys.exit(1)  # the reader has stopped reading, like `head`
        sys.exit(
            _complain(LecternError("What was found could not be written: {strerror}.", strerror=error.strerror), 1)
        )


def _complain(error: LecternError, status_code: int) -> int:
    from lectern.settings import in_own_language  # noqa: PLC0415 (all else that is typed starts without it)

    print("lectern: " + in_own_language([error.message])[0], file=sys.stderr)
    return status_code
