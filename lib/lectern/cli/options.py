"""What the commands share: options, settings, printing, the bus."""

import asyncio
import getpass
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from redis.exceptions import AuthenticationError, ResponseError

from lectern.decide.timeline import heading
from lectern.errors import REFUSED_BY_REDIS, LecternError, Misuse, TryAgain
from lectern.redis import connection
from lectern.redis.client import Bus
from lectern.redis.connection import asking
from lectern.settings import Common, Settings, StreamerSettings, TeacherSettings, exported, in_own_language
from lectern.states import Role
from lectern.urls import plain

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Name = Annotated[str | None, typer.Option("--name", help="The host's name, if not the one in the settings.")]


def settings_of(role: Role, name: str | None = None) -> Settings:
    """The settings of a role; *name* overrides the name in them. Raises Misuse."""
    if role == "teacher":
        return TeacherSettings.load(**({"teacher_name": name} if name else {}))
    return StreamerSettings.load(**({"streamer_name": name} if name else {}))


def set_prefect(settings: Common) -> None:
    """Set Prefect's settings in the environment; call it first, because Prefect reads them when it is imported."""
    ours = {"PREFECT_API_URL": settings.prefect_api_url}
    if settings.prefect_api_auth_string is not None:
        ours["PREFECT_API_AUTH_STRING"] = settings.prefect_api_auth_string.get_secret_value()
    exported.update({name.lower(): text for name, text in ours.items() if os.environ.get(name) != text})
    os.environ.update(ours)
    os.environ["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "false"
    # A host begins its work even if Prefect is down, so the client must not ask for the server's version first.
    os.environ["PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED"] = "false"
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")


def on_bus(settings: Common, work: Callable[[Bus], Awaitable[T]], within_s: float | None = None) -> T:
    """What *work* returns of an open bus; raises LecternError if Redis refuses it, or does not answer in *within_s*."""
    url = settings.redis_url.get_secret_value()

    async def ask() -> T:
        bus = Bus.open(url)
        try:
            async with asking(within_s):
                return await work(bus)
        finally:
            await bus.close()

    try:
        return asyncio.run(ask())
    except TryAgain as error:
        why = plain(error.__cause__ or error)
        if isinstance(error.__cause__, AuthenticationError):
            raise LecternError(
                "Redis refuses the login: {error}. Correct the user and password in REDIS_URL.", error=why.rstrip(".")
            ) from error.__cause__
        if isinstance(error.__cause__, ResponseError):
            raise LecternError(
                "Redis answers, and refuses this: {why}. {heading}",
                why=why.rstrip("."),
                heading=heading(REFUSED_BY_REDIS),
            ) from error.__cause__
        raise LecternError(
            "Redis does not answer: {why}. Is REDIS_URL right, and Redis up? Try: {command}",
            why=why,
            command=connection.command(url, "ping"),
        ) from error.__cause__


def me() -> str:
    """Who types: the user at this host; the number of one that has no name, as in a container."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # the former up to Python 3.12
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def typed(text: str) -> str:
    """*text* as it can be looked up and printed: what was typed in another encoding is known to no database."""
    return os.fsencode(text).decode(errors="replace")


def read(file: Path) -> str:
    """The text of *file*; raises Misuse if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise Misuse("{thing}: {what}", thing=file, what=why) from error


def say(as_json: bool, fields: dict[str, Any], lines: list[str]) -> None:
    """Print for a program, or for people."""
    print(json.dumps(fields) if as_json else "\n".join(in_own_language(lines)), flush=True)


_STYLES = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "bold red": "1;31"}


def painted(text: str, style: str | None) -> str:
    """*text* in a colour if the output is a terminal, plain everywhere else, and also if NO_COLOR is set."""
    if style is None or not text or os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"
