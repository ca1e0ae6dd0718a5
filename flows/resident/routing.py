"""Which flow handles the messages of a command, and from which channels and streams they come."""

from collections.abc import Mapping

from lectern.settings import Settings, TeacherSettings
from lectern.wire.messages import Message
from lectern.wire.parser import COMMANDS, PUBLISHED


def sources(settings: Settings) -> Mapping[str, type[Message]]:
    """The channels and streams of a host, each with one type of the messages that arrive over it."""
    kinds: dict[str, type[Message]] = {}
    for kind in _taken(settings).values():
        kinds.setdefault(getattr(settings, kind.comes_by).format(name=settings.name), kind)
    return kinds


def channels(settings: Settings) -> list[str]:
    """The `sources` that are Redis channels; the streams of the same names are read, too."""
    return [name for name, kind in sources(settings).items() if kind in PUBLISHED.values()]


def commands(settings: Settings) -> Mapping[str, str]:
    """The command as which a message without a known command is handled, by its channel or stream."""
    by_source: dict[str, str] = {}
    for command, kind in _taken(settings).items():
        by_source.setdefault(getattr(settings, kind.comes_by).format(name=settings.name), command)
    return by_source


def of(settings: Settings) -> Mapping[str, str]:
    """The flow of each command, and of a channel or stream in its place, which earlier releases wrote."""
    return {name: kind.goes_to for name, kind in {**sources(settings), **_taken(settings)}.items()}


def _taken(settings: Settings) -> Mapping[str, type[Message]]:
    """The commands of this role: a streamer takes those of its own stream, a teacher takes all others."""
    teacher = isinstance(settings, TeacherSettings)
    return {name: kind for name, kind in COMMANDS.items() if (kind.comes_by != "streamer_stream") == teacher}
