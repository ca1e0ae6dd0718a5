"""Outgoing messages: our answers and alarms, orders to streamers, and the form in which the outbox takes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, TypedDict, Unpack

from pydantic_core import from_json

from lectern import i18n
from lectern.errors import ErrorCode
from lectern.states import Resolution
from lectern.wire.fields import read_resolution, unchecked
from lectern.wire.messages import AiringEvent, Message, Prepare, SentenceMessage


class OutgoingKind(StrEnum):
    """How a message is sent."""

    CHANNEL = "channel"  # PUBLISH, and a bounded stream of the same name
    STREAM = "stream"  # XADD


@dataclass(frozen=True)
class Outgoing:
    """A message for *target*, a channel or stream."""

    target: str
    kind: OutgoingKind
    message: Message
    class_id: str | None = None


class Answer(Message):
    """What an answer of ours says of a class; code 0 is a success."""

    class_id: str
    result: Literal["success", "fail"]
    code: int
    message: str


class OrderResult(Answer):
    """Our answer to a booking."""

    cmd: Literal["order_result"] = "order_result"
    streamer: str | None = None


class Alarm(SentenceMessage):
    """Calls a person; *runbook* is the heading in RUNBOOK.md.

    *message* is English. If it has an id, *message_id* is the English with named gaps (*message_plural* the one for
    several things), and *args* are the values: numbers, texts, and objects of an id and args.
    """

    cmd: Literal["alarm"] = "alarm"
    code: int
    message: str
    at: float
    runbook: str
    class_id: str | None = None
    record_id: int | None = None
    video_resolution: str | None = None
    host: str | None = None


class ChangeResult(Answer):
    """Our answer to a change: it is in force, or the class stays as it was."""

    cmd: Literal["change_result"] = "change_result"


class CancelResult(Answer, SentenceMessage):
    """Our answer to a cancel: its streamer has confirmed it, and *sent_s* seconds had been sent; or why it fails."""

    cmd: Literal["cancel_result"] = "cancel_result"
    sent_s: float


class ClassEvent(SentenceMessage):
    """An event of a class's life: *seq* counts from 1 without holes, nothing follows ``refused`` or ``ended``.

    The same *seq* again is the same event. Times are epoch seconds. The sentence *message* has an id, as an alarm's.
    """

    cmd: Literal["class_event"] = "class_event"
    class_id: str
    institution_id: str | None = None
    seq: int
    event: Literal[AiringEvent, "accepted", "refused", "changed", "moved", "resumed", "ended"]
    at: float
    code: int
    message: str
    streamer: str | None = None
    from_streamer: str | None = None  # of moved: the one before
    differs: list[str] | None = None  # of changed: the names of the fields
    late_s: float | None = None  # of on_air
    lost_s: float | None = None  # of resumed and recording: how long the recording was not sent
    position_s: float | None = None  # of resumed and recording: where it goes on
    outcome: Literal["whole", "with_gaps", "not_aired", "cancelled"] | None = None  # the rest is of ended, too
    start_time: float | None = None
    end_time: float | None = None
    began_at: float | None = None
    ended_at: float | None = None
    sent_s: float | None = None
    slate_s: float | None = None
    missing_s: float | None = None
    sessions: int | None = None


class DeadLetter(Message):
    """A message that could not be read, with the reason; for people."""

    cmd: Literal["dead_letter"] = "dead_letter"
    error: str
    command: str
    body: str


# The values of these messages are our own, or were checked when they arrived: where checking would take longer than
# building the message, the values are not checked again.


def answer(
    class_id: str,
    code: int,
    message: str,
    kind: type[Answer] = OrderResult,
    **more: Any,  # noqa: ANN401 (its fields)
) -> Answer:
    """Our answer to a message about a class, by default to its booking: a success has code 0."""
    return kind(class_id=class_id, result="fail" if code else "success", code=code, message=message, **more)


def prepare(payload: str, url: str, placement: int) -> Prepare:
    """The message that tells a streamer of a booking that proceeds; unknown fields are passed on."""
    fields = {name: value for name, value in from_json(payload).items() if value is not None}
    for name in ("video_url_list", "push_url_backup", "by"):
        fields.pop(name, None)
    if "video_resolution" in fields:
        fields["video_resolution"] = Resolution(str(read_resolution(fields["video_resolution"])))
    fields |= {"cmd": "prepare", "video_url": url, "placement": placement}
    return unchecked(Prepare, fields)


class About(TypedDict, total=False):
    """What an alarm is about; *classes* if they are several."""

    class_id: str | None
    record_id: int | None
    video_resolution: Resolution | None
    classes: Sequence[str]


def alarm(code: ErrorCode, message: str, now: float, host: str, **about: Unpack[About]) -> Alarm:
    """An alarm for a person."""
    known = {name: value for name, value in about.items() if value not in (None, [])}
    whole = {"code": code.number, "message": message, "at": now, "runbook": code.runbook, "host": host, **known}
    return Alarm(**whole, **i18n.wire(message))


def dead_letter(stream: str, command: str, body: str, error: str) -> Outgoing:
    """An unreadable message, with the reason, for the *stream* of dead letters."""
    letter = DeadLetter.model_construct(error=error, body=body, command=command)
    return Outgoing(stream, OutgoingKind.STREAM, letter)
