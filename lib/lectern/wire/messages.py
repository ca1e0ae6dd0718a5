"""The incoming messages: frozen, and with the unknown fields of their senders; `parser` reads them."""

from collections.abc import Mapping
from functools import cache, cached_property
from typing import Annotated, Any, ClassVar, Literal, Unpack

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from lectern import rendition_ids, urls
from lectern.i18n import Text, of_wire
from lectern.rendition_ids import stem
from lectern.states import Resolution
from lectern.wire.fields import (
    BACKUP,
    MAX_NAME,
    SUCCESS,
    AiringName,
    Author,
    Count,
    EpochSeconds,
    HttpUrl,
    LooseBackend,
    LooseRecordId,
    Name,
    RecordId,
    ResultWord,
    RtmpUrl,
    RtmpUrlOrNone,
    UrlList,
    WireResolution,
    is_count,
    read_resolution,
    unchecked,
)

_RESOLUTIONS = tuple(Resolution)
_NEEDS_RECORD = Text("record_id is needed if a video_resolution is given")

TAKE_BACK = "take back"
"""Stands for a flow: a streamer handles releases and grants at once, without a flow, whichever server is down."""


class Message(BaseModel):
    """A frozen message; what it does not know, it keeps and passes on."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)  # a command reads few of them, or none
    cmd: str
    comes_by: ClassVar[str] = ""
    """The setting that names the channel or stream on which it arrives; empty for what lectern sends."""

    goes_to: ClassVar[str] = ""
    """The flow that handles it."""

    def __init_subclass__(cls, comes_by: str = "", goes_to: str = "", **config: Unpack[ConfigDict]) -> None:
        """Record where the message arrives and which flow handles it: a new message needs a class, and nothing else."""
        super().__init_subclass__(**config)
        cls.comes_by, cls.goes_to = comes_by, goes_to

    def to_json(self) -> str:
        """The message as it goes on the wire: our absent fields are left out, a null from its sender is kept."""
        absent = {name for name in _optional(type(self)) if getattr(self, name) is None}
        return self.__pydantic_serializer__.to_json(self, exclude=absent).decode()


@cache
def _optional(kind: type[Message]) -> tuple[str, ...]:
    """The names of the fields that may be absent, with None as their default."""
    return tuple(name for name, field in kind.model_fields.items() if field.default is None)


class SentenceMessage(Message):
    """A message whose text is a sentence: its id is the English with named gaps, *args* are the values in them."""

    message_id: str | None = None
    message_plural: str | None = None
    args: dict[str, Any] | None = None

    @property
    def reason(self) -> str:
        """The message, with its id and its values if it came with them."""
        return of_wire(vars(self))


class Booking(Message, comes_by="order_channel", goes_to="booking"):
    """A request that a class be aired; bookings of the old kind have none of the last three fields."""

    cmd: Literal["order"] = "order"
    class_id: Name
    institution_id: Name | None = None
    video_url: HttpUrl | None = None
    start_time: EpochSeconds
    end_time: EpochSeconds
    push_url: RtmpUrl
    push_url_backup: RtmpUrl | None = None
    record_id: RecordId | None = None
    video_url_list: UrlList = Field(default_factory=dict)
    video_resolution: WireResolution | None = None
    by: Author = None

    @model_validator(mode="after")
    def _whole(self) -> "Booking":
        if self.end_time <= self.start_time:
            raise ValueError(Text("end_time must be after start_time"))
        if self.video_resolution is None and self.video_url is None:
            raise ValueError(Text("video_url is needed if no video_resolution is given"))
        if self.video_resolution is not None and self.record_id is None:
            raise ValueError(_NEEDS_RECORD)
        _ = self.urls  # reading the property checks the URLs
        if self.push_url_backup is not None:
            if len(self.class_id) + len(BACKUP) > MAX_NAME:
                raise ValueError(
                    Text("class_id must be {n} characters shorter if there is a push_url_backup", n=len(BACKUP))
                )
            if len(self.streams) < 2:
                raise ValueError(Text("push_url_backup must be another stream than push_url"))
        return self

    @cached_property
    def urls(self) -> Mapping[Resolution, str]:
        """The checked URL of each resolution that we know; other keys, and keys without a URL, are ignored.

        Raises ValueError that names the resolution and says what is wrong.
        """
        known = {read_resolution(key): where for key, where in self.video_url_list.items() if where}
        found: dict[Resolution, str] = {}
        for size in _RESOLUTIONS:
            if where := known.get(size):
                try:
                    found[size] = urls.http(where).text
                except ValueError as error:
                    text = Text("video_url_list.{resolution} {error}", resolution=size, error=error)
                    raise ValueError(text) from None
        return found

    payload: ClassVar = cached_property(Message.to_json)
    """The JSON of the booking, which the database keeps."""

    @cached_property
    def streams(self) -> tuple[str, ...]:
        """The streams that the class and its second airing are pushed to, in one form for all spellings of a URL."""
        pushed = [self.push_url] if self.push_url_backup is None else [self.push_url, self.push_url_backup]
        return tuple(dict.fromkeys(urls.push(url).stream for url in pushed))

    @property
    def key(self) -> tuple[int, Resolution] | None:
        """The record and the resolution; None if no resolution is named."""
        record_id, size = self.record_id, self.video_resolution
        return None if record_id is None or size is None else (record_id, size)

    @property
    def stem(self) -> str:
        """The rendition's id: what a streamer calls it, unless another recording there has the name."""
        if self.record_id is None:
            return rendition_ids.of_url(self.video_url or "")
        return stem(self.record_id, self.video_resolution)

    def under(self, airing_id: str) -> "Booking":
        """The same under the id of another airing, which no class_id on the wire can have."""
        given = {name: getattr(self, name) for name in Booking.model_fields} | (self.model_extra or {})
        return unchecked(Booking, {**given, "class_id": airing_id})


class Cancel(Message, comes_by="cancel_channel", goes_to="booking"):
    """The class shall not be aired."""

    cmd: Literal["cancel"] = "cancel"
    class_id: Name
    by: Author = None


class TranscodingResult(Message, comes_by="transcoding_channel", goes_to="settle"):
    """What a transcoder made of a request; *attempt*, and *code* of a failure, are only in our own ECS results."""

    cmd: Literal["transcoding"] = "transcoding"
    record_id: LooseRecordId
    video_resolution: WireResolution
    result: ResultWord
    transcode_video_url: Annotated[HttpUrl | None, BeforeValidator(lambda url: url or None)] = None  # "" at a failure
    type: LooseBackend = None  # matters only for a failure
    attempt: Count | None = None
    code: Annotated[int | None, BeforeValidator(lambda code: code if is_count(code) else None)] = None
    message: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> "TranscodingResult":
        if self.success and self.transcode_video_url is None:
            raise ValueError(Text("transcode_video_url is needed if the result is a success"))
        if not self.success and self.type is None:
            raise ValueError(Text("type must be oss or ecs if the result is a failure"))
        return self

    @property
    def success(self) -> bool:
        """Whether the rendition was made."""
        return self.result.lower() in SUCCESS

    @property
    def key(self) -> tuple[int, Resolution]:
        """The record and the resolution."""
        return self.record_id, self.video_resolution

    @property
    def stem(self) -> str:
        """The rendition's id on a streamer."""
        return stem(*self.key)


class Prepare(Message, comes_by="streamer_stream", goes_to="prepare"):
    """Teacher to streamer: cache this rendition and air it at its time. *placement* counts the streamers it has had."""

    cmd: Literal["prepare"] = "prepare"
    placement: Count = 1
    class_id: AiringName
    institution_id: Name | None = None
    record_id: RecordId | None = None
    video_resolution: WireResolution | None = None
    video_url: HttpUrl
    start_time: EpochSeconds
    end_time: EpochSeconds
    push_url: RtmpUrl

    @model_validator(mode="after")
    def _whole(self) -> "Prepare":
        if self.video_resolution is not None and self.record_id is None:
            raise ValueError(_NEEDS_RECORD)
        return self

    @cached_property
    def stem(self) -> str:
        """The rendition's id on this streamer; until `named` sets it, the id in an empty cache."""
        return rendition_ids.chosen(self.record_id, self.video_resolution, self.video_url, {})

    @property
    def source(self) -> str | None:
        """The recording, identified by its URL; None if it has a record_id."""
        return rendition_ids.source(self.video_url) if self.record_id is None else None

    def named(self, held: Mapping[str, rendition_ids.HeldStem]) -> "Prepare":
        """The same message with the stem that it gets beside what the cache has *held*."""
        wanted = rendition_ids.chosen(self.record_id, self.video_resolution, self.video_url, held)
        found = self if vars(self).setdefault("stem", wanted) == wanted else self.model_copy()
        vars(found)["stem"] = wanted
        return found


class Release(Message, comes_by="streamer_stream", goes_to=TAKE_BACK):
    """Teacher to streamer: the class is not yours any more; stop citing its rendition.

    With a *placement* the class was moved: if a later placement has brought it back since, it stays.
    """

    cmd: Literal["release"] = "release"
    class_id: AiringName
    placement: Count | None = None


class Grant(Message, comes_by="streamer_stream", goes_to=TAKE_BACK):
    """Teacher to streamer: your lease is *session* from now on; all releases were sent before this message."""

    cmd: Literal["grant"] = "grant"
    streamer: Name
    session: Name


class Report(SentenceMessage, comes_by="report_stream", goes_to="report"):
    """Streamer to teacher: what became of a class.

    ``prepared`` answers a Prepare, ``amended`` an Amend (then *class_id* is the revision's, and *of_placement* that of
    the class), ``ended`` closes the airing.
    """

    cmd: Literal["prepared", "amended", "ended"]
    class_id: AiringName
    streamer: Name
    result: Literal["success", "fail"]
    code: Count = 0
    message: str = ""
    placement: Count = 1
    of_placement: Count | None = None
    as_run: list[dict[str, Any]] | None = None  # what was really sent of a class that ended, part by part: `AsRun`
    events: list[dict[str, Any]] | None = None  # what happened to it on its streamer while it was aired


AiringEvent = Literal["ready", "not_ready", "on_air", "interrupted", "slate", "recording"]


class AiringReport(SentenceMessage, comes_by="report_stream", goes_to="report"):
    """Streamer to teacher: how a class is, or is about to be, aired, and since when (*at*).

    What ends something says since when that lasted: ``on_air`` the silence before it, ``recording`` the slate.
    """

    cmd: Literal["airing"] = "airing"
    class_id: AiringName
    streamer: Name
    placement: Count = 1
    event: AiringEvent
    at: EpochSeconds
    since: EpochSeconds | None = None
    message: str = ""


class Change(Message, comes_by="change_channel", goes_to="change"):
    """New times, push URLs or another recording of a booked class; what is absent stays as it is.

    An empty ``push_url_backup`` takes the second airing away.
    """

    cmd: Literal["change"] = "change"
    class_id: Name
    start_time: EpochSeconds | None = None
    end_time: EpochSeconds | None = None
    push_url: RtmpUrl | None = None
    push_url_backup: RtmpUrlOrNone | None = None
    record_id: RecordId | None = None
    video_url: HttpUrl | None = None
    video_url_list: Mapping[str, str | None] | None = None
    video_resolution: WireResolution | None = None
    by: Author = None

    @model_validator(mode="after")
    def _whole(self) -> "Change":
        for name, value in (self.model_extra or {}).items():
            if name in Booking.model_fields and value is not None:
                raise ValueError(Text("{field} cannot be changed", field=name))
        if not self.given:
            raise ValueError(Text("nothing is to be changed: name one of {fields}", fields=", ".join(self._names())))
        return self

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        return tuple(name for name in cls.model_fields if name not in {"cmd", "class_id", "by"})

    @property
    def given(self) -> dict[str, Any]:
        """The fields that the message changes."""
        return {name: value for name in self._names() if (value := getattr(self, name)) is not None}

    def onto(self, booked: Mapping[str, Any]) -> Booking:
        """The booking that this change makes of the fields *booked*; raises ValidationError if that is not valid.

        URLs belong to a record_id: if the change names another record_id, it replaces the URLs by its own, if any.
        """
        fields, given = dict(booked), self.given
        if given.get("record_id", fields.get("record_id")) != fields.get("record_id"):
            fields = {name: value for name, value in fields.items() if name not in {"video_url", "video_url_list"}}
        whole = {**fields, **given, "cmd": "order", "class_id": self.class_id}
        return Booking.model_validate({**whole, "push_url_backup": whole.get("push_url_backup") or None})


class Amend(Message, comes_by="streamer_stream", goes_to="amend"):
    """Teacher to streamer: from now on the class has the content of its *revision*, which then ends.

    *placement* is that of the class. A report ``amended`` says when the class is aired so.
    """

    cmd: Literal["amend"] = "amend"
    class_id: AiringName
    revision: AiringName
    placement: Count
    revision_placement: Count = 1
