"""All that travels on the wire: frozen, parsed once, unknown fields kept."""

from collections.abc import Mapping
from functools import cache, cached_property
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json

from lectern import urls
from lectern.errors import Malformed
from lectern.states import Resolution
from lectern.wire import (
    SUCCESS,
    EpochSeconds,
    HttpUrl,
    LooseBackend,
    LooseRecordId,
    Name,
    RecordId,
    ResultWord,
    RtmpUrl,
    WireResolution,
    is_name,
    read_resolution,
)

_RESOLUTIONS = tuple(Resolution)

MAX_BODY_BYTES = 64 * 1024
"""A longer message is malformed; a booking is under 2 KiB."""


class Message(BaseModel):
    """A frozen message; what it does not know, it keeps and passes on."""

    model_config = ConfigDict(frozen=True, extra="allow")

    def to_json(self) -> str:
        """The message as it goes on the wire: our absent fields are left out, a sender's own null is kept."""
        return self.model_dump_json(exclude={name for name in _optional(type(self)) if getattr(self, name) is None})


@cache
def _optional(kind: type[Message]) -> tuple[str, ...]:
    """The fields that may be absent."""
    return tuple(name for name, field in kind.model_fields.items() if field.default is None)


class Booking(Message):
    """A request that a class be aired; the last three fields are absent in bookings of the old kind."""

    cmd: Literal["order"] = "order"
    class_id: Name
    institution_id: Name | None = None
    video_url: HttpUrl | None = None
    start_time: EpochSeconds
    end_time: EpochSeconds
    push_url: RtmpUrl
    record_id: RecordId
    video_url_list: Mapping[str, str] = Field(default_factory=dict)
    video_resolution: WireResolution | None = None

    @model_validator(mode="after")
    def _whole(self) -> "Booking":
        if self.end_time <= self.start_time:
            raise ValueError("end_time must be after start_time")
        if self.video_resolution is None and self.video_url is None:
            raise ValueError("video_url is needed where no video_resolution is given")
        _ = self.urls  # reading them checks them
        return self

    @cached_property
    def urls(self) -> Mapping[Resolution, str]:
        """The recording's URL of each resolution we know; other keys of the list are passed over."""
        known = {read_resolution(key): where for key, where in self.video_url_list.items()}
        return {size: _listed(size, known[size]) for size in _RESOLUTIONS if known.get(size)}

    @cached_property
    def payload(self) -> str:
        """What is kept of it: its JSON, by which a second delivery is told from another booking."""
        return self.to_json()

    @property
    def stem(self) -> str:
        """The rendition's id on a streamer."""
        return stem(self.record_id, self.video_resolution)


class Cancel(Message):
    """The class shall not be aired."""

    cmd: Literal["cancel"] = "cancel"
    class_id: Name


class TranscodingResult(Message):
    """What a transcoder made of a request; *attempt*, and *code* of a failure, are only in our own ECS results."""

    cmd: Literal["transcoding"] = "transcoding"
    record_id: LooseRecordId
    video_resolution: WireResolution
    result: ResultWord
    transcode_video_url: Annotated[HttpUrl | None, BeforeValidator(lambda url: url or None)] = None  # "" at a failure
    type: LooseBackend = None  # of a failure only it matters
    attempt: int | None = None
    code: Annotated[int | None, BeforeValidator(lambda code: code if type(code) is int else None)] = None
    message: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> "TranscodingResult":
        if self.success and self.transcode_video_url is None:
            raise ValueError("transcode_video_url is needed where the result is a success")
        if not self.success and self.type is None:
            raise ValueError("type must be oss or ecs where the result is a failure")
        return self

    @property
    def success(self) -> bool:
        """Whether the rendition was made."""
        return self.result.lower() in SUCCESS


class OrderResult(Message):
    """Our answer to a booking."""

    cmd: Literal["order_result"] = "order_result"
    class_id: str
    result: Literal["success", "fail"]
    code: int
    message: str
    streamer: str | None = None


class Alarm(Message):
    """A cry for a person; *runbook* is the heading in RUNBOOK.md."""

    cmd: Literal["alarm"] = "alarm"
    code: int
    message: str
    at: float
    runbook: str
    class_id: str | None = None
    record_id: int | None = None
    video_resolution: str | None = None
    host: str | None = None


class Prepare(Message):
    """Teacher to streamer: have this rendition, and air it then. *placement* counts the streamers that it had."""

    cmd: Literal["prepare"] = "prepare"
    placement: int = 1
    class_id: Name
    institution_id: Name | None = None
    record_id: RecordId
    video_resolution: WireResolution | None = None
    video_url: HttpUrl
    start_time: EpochSeconds
    end_time: EpochSeconds
    push_url: RtmpUrl

    @property
    def stem(self) -> str:
        """The rendition's id on a streamer."""
        return stem(self.record_id, self.video_resolution)


class Release(Message):
    """Teacher to streamer: the class is not yours any more; take its citation back.

    With a *placement* the class was moved: one that has come back since by a later placement stays.
    """

    cmd: Literal["release"] = "release"
    class_id: Name
    placement: int | None = None


class Grant(Message):
    """Teacher to streamer: all that was taken from you is told; from here on your lease is *session*."""

    cmd: Literal["grant"] = "grant"
    streamer: Name
    session: Name


class Report(Message):
    """Streamer to teacher: what became of a class. ``prepared`` answers a Prepare, ``ended`` closes the airing."""

    cmd: Literal["prepared", "ended"]
    class_id: Name
    streamer: Name
    result: Literal["success", "fail"]
    code: int = 0
    message: str = ""
    placement: int = 1


class DeadLetter(Message):
    """A message that could not be read, with the reason; for people."""

    cmd: Literal["dead_letter"] = "dead_letter"
    error: str
    command: str
    body: str


Inbound = Booking | Cancel | TranscodingResult | Prepare | Release | Grant | Report

BY_COMMAND: Mapping[str, type[Inbound]] = {
    "order": Booking,
    "cancel": Cancel,
    "transcoding": TranscodingResult,
    "prepare": Prepare,
    "release": Release,
    "grant": Grant,
    "prepared": Report,
    "ended": Report,
}


def _listed(size: Resolution, where: str) -> str:
    try:
        return urls.http(where).text
    except ValueError as error:
        raise ValueError(f"video_url_list.{size} {error}") from None


def stem(record_id: int, resolution: Resolution | None) -> str:
    """``6666_720P``, or ``6666`` where the booking named no resolution."""
    return f"{record_id}_{resolution}" if resolution else str(record_id)


def command_of(body: str | bytes) -> str:
    """The ``cmd`` of a message that may be anything; empty where there is none."""
    try:
        fields = _read(body)
    except ValueError:
        return ""
    command = fields.get("cmd") if isinstance(fields, dict) else None
    return command if isinstance(command, str) else ""


def _read(body: str | bytes) -> Any:  # noqa: ANN401 (any JSON)
    """The JSON in *body*, or ValueError; what could not be written again (NaN, half a surrogate pair) is none."""
    return from_json(body.encode() if isinstance(body, str) else body, allow_inf_nan=False)


M = TypeVar("M", bound=Message)


def parse(body: str | bytes, expected: tuple[type[M], ...]) -> M:
    """The message in *body*, one of the *expected* kinds.

    Raises Malformed with every fault in words, and with the class_id where one can be read.
    """
    if len(body) > MAX_BODY_BYTES:
        raise Malformed(f"the message has {len(body)} bytes, more than {MAX_BODY_BYTES}")
    try:
        fields = _read(body)
    except ValueError as error:
        raise Malformed(f"the message is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise Malformed(f"the message is a JSON {type(fields).__name__}, not an object")
    found = fields.get("class_id")
    class_id = found if isinstance(found, str) and is_name(found) else None
    kind = BY_COMMAND.get(fields["cmd"]) if isinstance(fields.get("cmd"), str) else None
    matching = [one for one in expected if one is kind]
    if not matching:
        wanted = " or ".join(sorted(name for name, one in BY_COMMAND.items() if one in expected))
        raise Malformed(f"cmd is {fields.get('cmd')!r:.60}, not {wanted}", class_id)
    try:
        return matching[0].model_validate(fields)
    except ValidationError as error:
        raise Malformed(_in_words(error), class_id) from error


def _in_words(error: ValidationError) -> str:
    """Every fault as ``field: what is wrong``; values are left out, for URLs can hold secrets."""
    faults: list[dict[str, Any]] = [dict(one) for one in error.errors(include_url=False, include_input=False)]
    return "; ".join(f"{_where(one['loc'])}: {one['msg'].removeprefix('Value error, ')}" for one in faults)


def _where(path: tuple[int | str, ...]) -> str:
    """The field of a fault; keys of the sender's own come from the wire and are escaped."""
    return ascii(".".join(map(str, path)))[1:-1][:80] or "message"
