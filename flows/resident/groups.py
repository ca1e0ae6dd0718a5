"""Which flow handles the messages of a command, and from which channels and streams they come."""

from collections.abc import Mapping

from lectern.commands import Command, taken_by
from lectern.settings import Settings, TeacherSettings


def sources(settings: Settings) -> Mapping[str, Command]:
    """The channels and streams of a host, and a command that comes over each."""
    found: dict[str, Command] = {}
    for one in _taken(settings).values():
        found.setdefault(getattr(settings, one.source).format(name=settings.name), one)
    return found


def of(settings: Settings) -> Mapping[str, str]:
    """The flow of each command; a message without a known command goes to the flow of its channel or stream."""
    return {name: one.flow for name, one in {**sources(settings), **_taken(settings)}.items()}


def commands(settings: Settings, flow: str) -> list[str]:
    """The commands that *flow* handles."""
    return [command for command, its in of(settings).items() if its == flow]


def _taken(settings: Settings) -> Mapping[str, Command]:
    return taken_by(teacher=isinstance(settings, TeacherSettings))
