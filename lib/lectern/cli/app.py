"""All commands, each loaded when it is typed; and the printing of errors."""

import errno
import gc
import io
import json
import os
import re
import sys
from collections.abc import Callable
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lectern import __version__
from lectern.errors import LecternError, Misuse, TryAgain
from lectern.redis import connection
from lectern.redis.client import Bus
from lectern.redis.connection import asking
from lectern.settings import Common, Settings, StreamerSettings, TeacherSettings
from lectern.urls import plain

COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("lectern.cli.serving", "Run this host's resident process until SIGTERM."),
    "status": ("lectern.cli.status", "How things stand: what is on air, what comes next, what waits."),
    "explain": ("lectern.cli.explain", "What happened to a class or a record, and what comes next or is to be typed."),
    "report": ("lectern.cli.report", "What was planned and what was really sent, class by class; csv, json or html."),
    "doctor": ("lectern.cli.doctor", "Look at all that this host needs; a line each, with what to type."),
    "book": ("lectern.cli.booking", "Book a class by hand."),
    "change": ("lectern.cli.change", "Change a booked class by hand, also while it is on air."),
    "cancel": ("lectern.cli.booking", "Cancel a class by hand."),
    "cache": ("lectern.cli.cache", "A streamer's cache."),
    "init": ("lectern.cli.serving", "Migrate this host's database and make its deployments; safe to repeat."),
    "deploy": ("lectern.cli.serving", "Make this host's deployments in Prefect, and nothing else."),
    "alarm": ("lectern.cli.alarm", "Whether alarms reach people."),
    "viewer": ("lectern.cli.viewer", "Who may look at the teacher's page."),
    "rekey": ("lectern.cli.rekey", "Rename Redis keys by rules, never over another key."),
    "backup": ("lectern.cli.backup", "Back a database up while it is at work, and prove the backup."),
    "playout": ("lectern.cli.playout", "The process that airs classes; its status, and its upgrade."),
    "drain": ("lectern.cli.drain", "Move a streamer's classes to others, and wait for the last one on air."),
    "rollout": ("lectern.rollout.commands", "The steps of a rollout on this host; playbooks type them."),
}
"""Each command: the module whose ``app`` has it, and its help. A module is imported only when its command is typed,
because importing all of them takes seconds."""

EXAMPLES = {
    "serve": "lectern serve streamer --name streamer1",
    "status": "lectern status --watch",
    "explain": "lectern explain c-1001",
    "report": "lectern report --from 2026-11-01 --to 2026-11-30 --institution i-7 > november.csv",
    "doctor": "lectern doctor streamer",
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
        for name, command in ((cmd_name, found), *_parts(cmd_name, found)):
            if name in EXAMPLES:
                command.epilog = f"\b\nExample:\n  {EXAMPLES[name]}"
        return found

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 (as above)
        """Write the table's lines."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, what) for name, (_, what) in COMMANDS.items()])


def _parts(name: str, command: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 (typer's own class is private)
    parts = getattr(command, "commands", {})
    for one in parts.values():
        one.short_help = (one.help or "").partition("\n\n")[0]  # whole, where a list of commands would cut it off
    return [(f"{name} {part}", one) for part, one in parts.items()]


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
        print(f"lectern {__version__}")
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
    except Misuse as error:
        sys.exit(_complain(error, 2))
    except LecternError as error:
        sys.exit(_complain(error, 1))
    except OSError as error:
        if error.filename is not None or error.errno not in _OUTPUT_LOST:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python writes once more
        if error.errno == errno.EPIPE:
            sys.exit(1)  # the reader has stopped reading, like `head`
        sys.exit(_complain(LecternError(f"What was found could not be written: {error.strerror}."), 1))


def _complain(error: LecternError, status_code: int) -> int:
    print(f"lectern: {error}", file=sys.stderr)
    return status_code


# What the commands share: options, settings, printing, the bus.


Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Name = Annotated[str | None, typer.Option("--name", help="The host's name, if not the one in the settings.")]


class Role(StrEnum):
    """The role of a host."""

    teacher = "teacher"
    streamer = "streamer"


def settings_of(role: Role, name: str | None = None) -> Settings:
    """The settings of a role; *name* overrides the name in them. Raises Misuse."""
    if role is Role.teacher:
        return TeacherSettings.load(**({"teacher_name": name} if name else {}))
    return StreamerSettings.load(**({"streamer_name": name} if name else {}))


def set_prefect(settings: Common) -> None:
    """Set Prefect's settings in the environment; call it first, because Prefect reads them when it is imported."""
    os.environ["PREFECT_API_URL"] = settings.prefect_api_url
    if settings.prefect_api_auth_string is not None:
        os.environ["PREFECT_API_AUTH_STRING"] = settings.prefect_api_auth_string.get_secret_value()
    os.environ["PREFECT_WORKER_QUERY_SECONDS"] = str(settings.poll_interval_s)
    # Our own watch ends cancelled runs; the worker's would kill the process that all runs share.
    os.environ["PREFECT_WORKER_ENABLE_CANCELLATION"] = "false"
    os.environ["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "false"
    # A host begins its work even if Prefect is down, so the client must not ask for the server's version first.
    os.environ["PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED"] = "false"
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")


async def on_bus(settings: Common, work: "Any") -> Any:  # noqa: ANN401 (a call of the bus)
    """What *work* returns of an open bus; raises LecternError if Redis does not answer."""
    bus = Bus.open(settings.redis_url.get_secret_value())
    try:
        async with asking():
            return await work(bus)
    except TryAgain as error:
        asked = connection.command(settings.redis_url.get_secret_value(), "ping")
        raise LecternError(
            f"Redis does not answer: {plain(error.__cause__ or error)}. Is REDIS_URL right, and Redis up? Try: {asked}"
        ) from error.__cause__
    finally:
        await bus.close()


def typed(text: str) -> str:
    """*text* as it can be looked up and printed: what was typed in another encoding is known to no database."""
    return os.fsencode(text).decode(errors="replace")


def read(file: Path) -> str:
    """The text of *file*; raises Misuse if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise Misuse(f"{file}: {why}") from error


def say(as_json: bool, fields: dict[str, Any], lines: list[str]) -> None:
    """Print for a program, or for people."""
    print(json.dumps(fields) if as_json else "\n".join(lines), flush=True)


_STYLES = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "bold red": "1;31"}
_COLOUR = re.compile(r"\x1b\[[\d;]+m")


def painted(text: str, style: str | None) -> str:
    """*text* in a colour if the output is a terminal, plain everywhere else, and also if NO_COLOR is set."""
    if style is None or not text or os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def translated(text: str, translate: Callable[[str], str]) -> str:
    """*text* in another language; if it has a colour anywhere, the whole translation has it."""
    colours = _COLOUR.findall(text)
    said = translate(_COLOUR.sub("", text))
    return f"{colours[0]}{said}{colours[-1]}" if colours else said
