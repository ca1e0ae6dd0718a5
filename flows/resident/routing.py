"""Which flow handles the messages of a command, and from which channels and streams they come."""

from collections.abc import Mapping

from lectern.settings import Settings, TeacherSettings
from lectern.wire.messages import Message
from lectern.wire.parser import COMMANDS


def sources(settings: Settings) -> Mapping[str, str]:
    """The channels and streams of a host, each with the command as which a message without a known one is handled."""
    commands: dict[str, str] = {}
    for command, kind in _taken(settings).items():
        commands.setdefault(getattr(settings, kind.comes_by).format(name=settings.name), command)
    return commands


def of(settings: Settings) -> Mapping[str, str]:
    """The flow of each command."""
    return {command: kind.goes_to for command, kind in _taken(settings).items()}


def _taken(settings: Settings) -> Mapping[str, type[Message]]:
    """The commands of this role: a streamer takes those of its own stream, a teacher takes all others."""
    teacher = isinstance(settings, TeacherSettings)
    return {name: kind for name, kind in COMMANDS.items() if (kind.comes_by != "streamer_stream") == teacher}
