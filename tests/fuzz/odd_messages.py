"""Odd messages of every kind; each follows from the seed and its number alone."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.fuzz import odd_values as odd
from tests.stage import Stage

CHANNELS = ("order", "cancel", "transcoding")
STREAMS = (*CHANNELS, "report", "streamer")
"""The streams that the teacher reads, and the streamer's own."""

Fields = dict[str, Any]


@dataclass(frozen=True)
class Sending:
    """One message: *body* on a channel, or *fields* of a stream's entry."""

    via: Literal["channel", "stream"]
    target: str
    body: bytes = b""
    fields: Mapping[bytes, bytes] | None = None

    @property
    def entry(self) -> Mapping[bytes, bytes]:
        """As it is put on a stream."""
        return {b"body": self.body} if self.fields is None else self.fields

    def stream(self, stage: Stage) -> str:
        """The stream that it goes to."""
        if self.target == "streamer":
            return f"{stage.prefix}:to:{stage.name('streamer1')}"
        return stage.channels.get(self.target, stage.settings["REPORT_STREAM"])


@dataclass(frozen=True)
class Odd:
    """What is sent as number *index*; *due* is the class that must be answered, if its booking can be read."""

    index: int
    kind: str
    sendings: tuple[Sending, ...]
    due: str | None = None


@dataclass(frozen=True)
class Here:
    """What there is, by its name: what a stranger who has looked around could name."""

    seed: int
    streamer: str
    origin: str
    record_id: int  # of a recording that the origin has
    good: list[str] = field(default_factory=list)  # classes that are booked


@dataclass
class Draw:
    """One drawing: its chance, its number, what there is."""

    chance: random.Random
    index: int
    here: Here

    @property
    def class_id(self) -> str:
        """A class of this number's own."""
        return f"odd-{self.here.seed}-{self.index}"

    @property
    def record_id(self) -> int:
        """A record that nobody else asks for."""
        return 5_000_000 + self.index

    def sending(self, body: bytes, *, to: tuple[str, ...] = STREAMS) -> Sending:
        """*body* on one of the channels or streams *to*."""
        target = self.chance.choice(to)
        on_channel = target in CHANNELS and self.chance.random() < 0.5
        return Sending("channel" if on_channel else "stream", target, body)

    def base(self) -> Fields:
        """A message without fault, of any role."""
        return self.chance.choice([bases[name](self) for name in bases])

    def start(self) -> float:
        """Mostly far away; sometimes so near that the push URL is tried."""
        return time.time() + (odd.SOON_S if self.chance.random() < 0.03 else odd.FAR_S)


def booking(draw: Draw, **fields: object) -> Fields:
    """A booking of the old kind that could be honoured, changed by *fields*."""
    start = draw.start()
    return {
        "cmd": "order",
        "class_id": draw.class_id,
        "institution_id": "i-7",
        "video_url": f"{draw.here.origin}/{draw.here.record_id}/{draw.here.record_id}.flv",
        "start_time": start,
        "end_time": start + 60,
        "push_url": f"rtmp://127.0.0.1:1/live/{draw.class_id}",
        "record_id": draw.here.record_id,
        **fields,
    }


def listed(draw: Draw) -> Fields:
    """A booking with a resolution that is listed."""
    urls = {"720P": f"{draw.here.origin}/{draw.here.record_id}/{draw.here.record_id}_720P.flv"}
    return booking(draw, video_resolution="720P", video_url_list=urls)


def result(draw: Draw, **fields: object) -> Fields:
    """A transcoding result, changed by *fields*."""
    return {
        "cmd": "transcoding",
        "record_id": draw.record_id,
        "video_resolution": "720P",
        "result": draw.chance.choice(("sucess", "success", "fail", "failed")),
        "transcode_video_url": f"{draw.here.origin}/{draw.here.record_id}/{draw.here.record_id}_720P.flv",
        "type": draw.chance.choice(("oss", "ecs")),
        **fields,
    }


def prepare(draw: Draw) -> Fields:
    """What a teacher tells a streamer; its recording is nowhere, so that nothing comes of it."""
    found = booking(draw, cmd="prepare", placement=draw.chance.choice((1, 0, -1, 2, 10**9)), record_id=draw.record_id)
    return {**found, "video_url": f"{draw.here.origin}/nowhere/{draw.index}.flv"}


def report(draw: Draw) -> Fields:
    """A stranger's report; of a class that is booked, it is never of the streamer that has it."""
    is_ours = draw.chance.random() < 0.3 and draw.here.good
    class_id = draw.chance.choice(draw.here.good) if is_ours else draw.class_id
    streamer = "stranger" if is_ours else draw.chance.choice((draw.here.streamer, "stranger", "teacher"))
    return {
        "cmd": draw.chance.choice(("prepared", "ended")),
        "class_id": class_id,
        "streamer": streamer,
        "result": draw.chance.choice(("success", "fail")),
        "code": draw.chance.choice((0, 316, 321, 411, -1, 10**9)),
        "message": "said a stranger",
        "placement": draw.chance.choice((0, 1, 2, -1, 10**12)),
    }


bases: Mapping[str, Callable[[Draw], Fields]] = {
    "order": booking,
    "listed": listed,
    "cancel": lambda draw: {"cmd": "cancel", "class_id": draw.class_id},
    "transcoding": result,
    "prepare": prepare,
    "release": lambda draw: {
        "cmd": "release",
        "class_id": draw.class_id,
        "placement": draw.chance.choice((None, 0, -1, 10**9)),
    },
    "grant": lambda draw: {"cmd": "grant", "streamer": "stranger", "session": f"s-{draw.index}"},
    "report": report,
}


def specials(field: str) -> odd.Pick:
    """Odd values that are meant for a field of this name."""
    if "url_list" in field:
        return _url_list
    if "url" in field:
        schemes = ("rtmp", "rtmps") if "push" in field else ("http", "https")
        return lambda chance: odd.url(chance, *schemes)
    if "time" in field:
        return odd.of(odd.TIMES)
    if "resolution" in field:
        return odd.of(odd.RESOLUTIONS)
    if field in {"record_id", "code", "placement", "attempt"}:
        return odd.of(odd.NUMBERS)
    return odd.of(odd.NAMES)


def _url_list(chance: random.Random) -> dict[str, str]:
    return {
        str(chance.choice(odd.RESOLUTIONS))[:1_000]: odd.url(chance, "http") for _ in range(chance.choice((0, 1, 3)))
    }


def spoiled(draw: Draw, message: Fields, values: odd.Pick | None = None, keep: tuple[str, ...] = ()) -> Odd:
    """*message* with a field spoiled, or two, but none to *keep*; by what is odd for the field if not by *values*."""
    fields = draw.chance.sample(sorted(message.keys() - set(keep)), k=draw.chance.choice((1, 1, 1, 2)))
    found: Fields = dict(message)
    for name in fields:
        found[name] = (values or specials(name))(draw.chance)
    body = odd.written(found)
    is_order = message["cmd"] == "order"
    sending = draw.sending(body, to=("order",) if is_order and draw.chance.random() < 0.8 else STREAMS)
    is_due = is_order and not {"cmd", "class_id"} & set(fields) and sending.target in {"order", "cancel"}
    return Odd(draw.index, "", (sending,), draw.class_id if is_due and odd.is_readable(body) else None)
