"""The messages that change a booked class."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from lectern.messages import Booking, Message
from lectern.wire import (
    AiringName,
    Count,
    EpochSeconds,
    HttpUrl,
    Name,
    RecordId,
    RtmpUrl,
    RtmpUrlOrNone,
    WireResolution,
)


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

    @model_validator(mode="after")
    def _whole(self) -> "Change":
        for name, value in (self.model_extra or {}).items():
            if name in Booking.model_fields and value is not None:
                raise ValueError(f"{name} cannot be changed")
        if not self.given:
            raise ValueError(f"nothing is to be changed: name one of {', '.join(self._names())}")
        return self

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        return tuple(name for name in cls.model_fields if name not in {"cmd", "class_id"})

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
