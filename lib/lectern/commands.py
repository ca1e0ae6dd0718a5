"""What each command on the wire is: its message, where it comes in, which flow handles it; and the one parser."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from lectern.amendments import Amend, Change
from lectern.body import fields_of, holds_nul, in_words, read
from lectern.errors import Malformed
from lectern.messages import Booking, Cancel, Grant, Message, Prepare, Release, Report, TranscodingResult
from lectern.wire import is_name

MAX_BODY_BYTES = 64 * 1024
"""A longer message is malformed; a booking is under 2 KiB."""

TAKE_BACK = "take back"
"""In the place of a flow: a streamer handles releases and grants at once, without a flow, whatever is away."""


@dataclass(frozen=True)
class Command:
    """A word that a message can have in ``cmd``."""

    message: type[Message]
    source: str
    """The setting that names the channel or the stream on which it comes."""

    flow: str

    @property
    def is_published(self) -> bool:
        """Whether it comes over a channel, and over the stream of the same name; else over a stream only."""
        return self.source.endswith("_channel")


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "order": Command(Booking, "order_channel", "booking"),
        "cancel": Command(Cancel, "cancel_channel", "booking"),
        "change": Command(Change, "change_channel", "change"),
        "transcoding": Command(TranscodingResult, "transcoding_channel", "settle"),
        "prepared": Command(Report, "report_stream", "report"),
        "ended": Command(Report, "report_stream", "report"),
        "prepare": Command(Prepare, "streamer_stream", "prepare"),
        "amend": Command(Amend, "streamer_stream", "amend"),
        "release": Command(Release, "streamer_stream", TAKE_BACK),
        "grant": Command(Grant, "streamer_stream", TAKE_BACK),
    }
)
"""All that comes in. A new message is a class in `messages` and a line here."""


def taken_by(*, teacher: bool) -> dict[str, Command]:
    """The commands that a teacher takes, or a streamer: whatever does not come over the streamer's own stream."""
    return {name: one for name, one in COMMANDS.items() if (one.source != "streamer_stream") == teacher}


def command_of(body: str | bytes) -> str:
    """The ``cmd`` of a message that may be anything; empty if there is none."""
    command = fields_of(body).get("cmd")
    return command if isinstance(command, str) else ""


M = TypeVar("M", bound=Message)


def parse(body: str | bytes, expected: tuple[type[M], ...]) -> M:
    """The message in *body*, one of the *expected* kinds.

    Raises Malformed with every fault in words, and with the class_id if one can be read.
    """
    if len(body) > MAX_BODY_BYTES:
        raise Malformed(f"the message is longer than {MAX_BODY_BYTES} bytes")
    try:
        fields = read(body)
    except ValueError as error:
        raise Malformed(f"the message is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise Malformed(f"the message is a JSON {type(fields).__name__}, not an object")
    command = COMMANDS.get(fields["cmd"]) if isinstance(fields.get("cmd"), str) else None
    if command is None or command.message not in expected:
        wanted = " or ".join(sorted(name for name, one in COMMANDS.items() if one.message in expected))
        raise Malformed(f"cmd is {fields.get('cmd')!r:.60}, not {wanted}", _class_id(fields))
    if holds_nul(body, fields):
        raise Malformed("a text of the message holds a NUL character", _class_id(fields))
    try:
        return command.message.model_validate(fields)
    except ValidationError as error:
        raise Malformed(in_words(error), _class_id(fields)) from error


def _class_id(fields: Mapping[str, Any]) -> str | None:
    """The class that a malformed message is about, where that can be read."""
    found = fields.get("class_id")
    return found if isinstance(found, str) and is_name(found) else None
