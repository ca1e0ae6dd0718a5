"""Incoming messages: the table of all commands, the one parser, and its faults in words."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic_core import from_json

from lectern.errors import Malformed
from lectern.i18n import Text, found_wrong, joined, msgid
from lectern.states import Backend
from lectern.wire import messages
from lectern.wire.fields import PLATFORM, is_name
from lectern.wire.messages import Booking, Message

MAX_BODY_BYTES = 64 * 1024
"""A longer message is malformed; a booking is under 2 KiB."""

BESIDE_BYTES = 4 * 1024
"""How much shorter a booking must be, as it is kept: its streamer is told it with the URL of its rendition."""

COMMANDS: Mapping[str, type[Message]] = MappingProxyType(
    {
        name: kind
        for kind in vars(messages).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind.comes_by
        for name in get_args(kind.model_fields["cmd"].annotation)
    }
)
"""The class of each incoming message by its ``cmd``, of `messages`."""

PUBLISHED: Mapping[str, type[Message]] = MappingProxyType(
    {name: kind for name, kind in COMMANDS.items() if kind.comes_by.endswith("_channel")}
)
"""Messages that arrive on a channel and on the stream of the same name; the others arrive on a stream only."""


class Body(str):  # noqa: SLOT000 (it keeps its JSON)
    """The text of a message that several steps look into: `read` keeps its JSON here."""

    json: Any = None


def read(body: str | bytes) -> Any:  # noqa: ANN401 (any JSON)
    """The JSON in *body*; raises ValueError if it is no JSON, or cannot be written again (NaN, half a surrogate)."""
    if isinstance(body, Body) and body.json is not None:
        return body.json
    found = from_json(body.encode() if isinstance(body, str) else body, allow_inf_nan=False)
    if isinstance(body, Body):
        body.json = found
    return found


def fields_of(body: str | bytes) -> Mapping[str, Any]:
    """The fields of a message of any kind; empty if it is no JSON object. Raises nothing."""
    try:
        fields = read(body)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def author_of(payload: str) -> str:
    """Who booked a class, by the booking that is kept."""
    found = fields_of(payload).get("by") if '"by"' in payload else None
    return found if isinstance(found, str) and found else PLATFORM


def _nul_in(value: object) -> bool:
    if isinstance(value, dict):
        return any(_nul_in(one) for pair in value.items() for one in pair)
    if isinstance(value, list):
        return any(_nul_in(one) for one in value)
    return isinstance(value, str) and "\0" in value


def command_of(body: str | bytes) -> str:
    """The ``cmd`` of a message of any kind; empty if it has none."""
    command = fields_of(body).get("cmd")
    return command if isinstance(command, str) else ""


def is_own_result(body: str | bytes) -> bool:
    """Whether the message is a result of our own ECS transcoding, which we read from the stream, not the channel."""
    fields = fields_of(body)
    return fields.get("cmd") == "transcoding" and fields.get("type") == Backend.ECS and "attempt" in fields


M = TypeVar("M", bound=Message)


def parse(body: str | bytes, expected: tuple[type[M], ...], meant: str = "") -> M:
    """The message in *body*, one of the *expected* kinds.

    Raises Malformed with every fault in words, and with the class_id if one can be read. The fields of a message
    without a known ``cmd`` are checked as those of the command *meant*, by default of the first expected kind.
    """
    if len(body) > MAX_BODY_BYTES:
        raise Malformed(Text("the message is longer than {max_body_bytes} bytes", max_body_bytes=MAX_BODY_BYTES))
    if not body:
        raise Malformed(Text("the message is empty"))
    try:
        fields = read(body)
    except ValueError as error:
        raise Malformed(Text("the message is not JSON: {error}", error=error)) from error
    if not isinstance(fields, dict):
        raise Malformed(Text("the message is a JSON {name}, not an object", name=type(fields).__name__))
    kind = COMMANDS.get(fields["cmd"]) if isinstance(fields.get("cmd"), str) else None
    if kind is None or kind not in expected:
        wanted = ", ".join(sorted(name for name, one in COMMANDS.items() if one in expected))
        said = Text("cmd is {get:.60}, not {wanted}", get=repr(fields.get("cmd")), wanted=wanted)
        raise Malformed(joined([said, *_faults(fields, expected, meant)]), _class_id(fields))
    # NUL is the one character that PostgreSQL cannot keep; search the fields only if the text may hold one.
    if (b"\\u0000" in body if isinstance(body, bytes) else "\\u0000" in body) and _nul_in(fields):
        raise Malformed(Text("a text of the message holds a NUL character"), _class_id(fields))
    try:
        message = kind.model_validate(fields)
    except ValidationError as error:
        raise Malformed(in_words(error), _class_id(fields)) from error
    if isinstance(message, Booking) and len(message.payload) > (most := MAX_BODY_BYTES - BESIDE_BYTES):
        why = Text("the message is longer than {max_body_bytes} bytes", max_body_bytes=most)
        raise Malformed(why, message.class_id)
    return message


def _faults(fields: Mapping[str, Any], expected: tuple[type[M], ...], meant: str) -> list[str]:
    """The faults of the fields other than ``cmd``; none if its cmd names a message that is not expected here."""
    if isinstance(fields.get("cmd"), str) and fields["cmd"] in COMMANDS:
        return []
    kind = COMMANDS.get(meant)
    kind = kind if kind in expected else expected[0]
    try:
        kind.model_validate({**fields, "cmd": get_args(kind.model_fields["cmd"].annotation)[0]})
    except ValidationError as error:
        return [in_words(error)]
    return []


def _class_id(fields: Mapping[str, Any]) -> str | None:
    found = fields.get("class_id")
    return found if isinstance(found, str) and is_name(found) else None


def in_words(error: ValidationError) -> str:
    """Every fault as ``field: what is wrong``; unknown keys are escaped, because the sender chose them."""
    faults = error.errors(include_url=False, include_input=False)
    return found_wrong(faults, msgid("message"), lambda name: ascii(name)[1:-1][:80])
