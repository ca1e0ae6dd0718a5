"""Odd messages of every kind; each follows from the seed and its number alone."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from tests.fuzz import odd_values as odd
from tests.stage import Stage

CHANNELS = ("order", "cancel", "transcoding")
STREAMS = (*CHANNELS, "report", "streamer")
"""The streams that the teacher reads, and the streamer's own."""

Fields = dict[str, Any]
Draws = Callable[["Draw"], "Odd"]


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


# -- the kinds, each drawn by a function -------------------------------------------------------------------------


def _one(draw: Draw, body: bytes, *, to: tuple[str, ...] = STREAMS) -> Odd:
    return Odd(draw.index, "", (draw.sending(body, to=to),))


def any_field(values: odd.Pick, draw: Draw) -> Odd:
    """One of *values* in any field of any message."""
    return spoiled(draw, draw.base(), values)


def its_field(draw: Draw) -> Odd:
    """In a field of a booking what is odd for it: times that never were, resolutions, hosts and ports that are none."""
    message = draw.chance.choice((booking(draw), listed(draw), listed(draw)))
    return spoiled(draw, {**message, "record_id": draw.record_id}, keep=("cmd", "class_id"))


def brackets(draw: Draw) -> Odd:
    """So deep that a reader falls over, alone or within a field."""
    deep = odd.brackets(draw.chance)
    if draw.chance.random() < 0.4:
        deep = odd.written({**draw.base(), draw.chance.choice(("x", "class_id", "video_url_list")): odd.Raw(deep)})
    return _one(draw, deep)


def not_utf8(draw: Draw) -> Odd:
    """Bytes that are no text, somewhere in a message."""
    body = bytearray(odd.written(draw.base()))
    for _ in range(draw.chance.choice((1, 1, 3))):
        at = draw.chance.randrange(len(body) + 1)
        body[at:at] = draw.chance.choice(odd.BAD_BYTES)
    return _one(draw, bytes(body))


def doubled_keys(draw: Draw) -> Odd:
    """A key that comes more than once, with another value."""
    pairs: list[tuple[object, object]] = list(draw.base().items())
    for key, _ in draw.chance.sample(pairs, k=2):
        value = draw.chance.choice((draw.chance.choice(odd.TYPES), draw.chance.choice(odd.NAMES)))
        pairs.insert(draw.chance.randrange(len(pairs) + 1), (key, value))
    return _one(draw, odd.written(odd.Pairs(pairs)))


def one_field(
    base: Callable[[Draw], Fields], field: str, values: Sequence[object], to: tuple[str, ...], draw: Draw
) -> Odd:
    """A command, or the name of a class, that nobody knows, or none; quotes, dots, colons, 250 or 251 characters."""
    message = {**base(draw), field: draw.chance.choice(values)}
    if field == "cmd" and draw.chance.random() < 0.2:
        del message["cmd"]
    return _one(draw, odd.written(message), to=to)


def strangers(draw: Draw) -> Odd:
    """What only hosts say to each other, said by a stranger, to anybody; odd names and placements among it."""
    session = draw.chance.choice((f"s-{draw.index}", *odd.NAMES))
    grant: Fields = {"cmd": "grant", "streamer": draw.here.streamer, "session": session}
    message = draw.chance.choice((report(draw), report(draw), prepare(draw), grant))
    if message is grant and draw.chance.random() < 0.5:
        grant["streamer"] = draw.chance.choice(odd.NAMES)
    elif draw.chance.random() < 0.4 and message.get("class_id") == draw.class_id:
        message["class_id"] = draw.chance.choice(odd.NAMES)
    return _one(draw, odd.written(message), to=(*STREAMS, "report", "streamer"))


def results(draw: Draw) -> Odd:
    """Of renditions that nobody asked for; stale, doubled and contradicting ones of one that somebody did."""
    if draw.chance.random() < 0.5:
        return _one(draw, odd.written(result(draw)), to=("transcoding",))
    asked = booking(draw, record_id=draw.record_id, video_resolution="720P", video_url_list={})
    said = [result(draw, attempt=draw.chance.choice((None, 0, 1, 2, 10**9))) for _ in range(draw.chance.choice((2, 3)))]
    sendings = [draw.sending(odd.written(one), to=("transcoding",)) for one in [*said, said[0]]]
    return Odd(draw.index, "", (Sending("stream", "order", odd.written(asked)), *sendings), draw.class_id)


def again(draw: Draw) -> Odd:
    """A booking that is delivered a second time, differently."""
    first = booking(draw)
    name = draw.chance.choice(sorted(first.keys() - {"cmd", "class_id"}))
    second = {**first, name: draw.chance.choice((specials(name)(draw.chance), first[name]))}
    sendings = [draw.sending(odd.written(one), to=("order",)) for one in (first, second)]
    return Odd(draw.index, "", tuple(sendings), draw.class_id)


def noise(draw: Draw) -> Odd:
    """No message at all."""
    junk = (b"", b" ", b"null", b"0", b'"order"', b"[]", b"{}", b"{", b"\0", b"\xef\xbb\xbf{}", b" " * 70_000)
    whole = odd.written(draw.base())
    cut = whole[: draw.chance.randrange(len(whole))]
    return _one(draw, draw.chance.choice((*junk, draw.chance.randbytes(40), cut, whole + whole, whole + b"\0")))


def entries(draw: Draw) -> Odd:
    """Entries of a stream that have no body, or several fields, or fields that are no text."""
    body = odd.written(draw.base())
    fields: tuple[dict[bytes, bytes], ...] = (
        *({b"": body}, {b"BODY": body}, {b"a": b"1", b"b": b"2"}, {b"body": b"", b"x": body}),
        *({b"\xff": b"\xfe", b"\0": b"\0"}, {b"message": body, b"\xed\xa0\x80": b"1"}),
        {name.encode(): odd.written(value) for name, value in draw.base().items()},
        {str(number).encode(): b"x" for number in range(300)},
    )
    return Odd(draw.index, "", (Sending("stream", draw.chance.choice(STREAMS), fields=draw.chance.choice(fields)),))


KINDS: Mapping[str, tuple[Draws, int]] = {
    "brackets": (brackets, 4),
    "surrogates": (partial(any_field, odd.of(odd.SURROGATES)), 4),
    "NULs": (partial(any_field, odd.of(odd.NULS)), 4),
    "numbers": (partial(any_field, odd.of(odd.NUMBERS)), 6),
    "types": (partial(any_field, odd.of(odd.TYPES)), 8),
    "long": (partial(any_field, odd.long_text), 2),
    "its field": (its_field, 17),
    "not UTF-8": (not_utf8, 4),
    "doubled keys": (doubled_keys, 4),
    "commands": (partial(one_field, Draw.base, "cmd", odd.WORDS, STREAMS), 4),
    "strangers": (strangers, 8),
    "results": (results, 5),
    "differently again": (again, 5),
    "cancels": (partial(one_field, bases["cancel"], "class_id", odd.NAMES, STREAMS), 2),
    "cancels of nobody's": (lambda draw: _one(draw, odd.written(bases["cancel"](draw))), 2),
    "names": (partial(one_field, booking, "class_id", odd.NAMES, ("order",)), 3),
    "names of institutions": (partial(one_field, booking, "institution_id", odd.NAMES, ("order",)), 2),
    "noise": (noise, 6),
    "entries": (entries, 4),
}
"""By the name of a kind: how it is drawn, and how often in comparison."""


TWO_WAYS = frozenset({"differently again", "names", "doubled keys"})
"""Kinds in which a class_id stands for two bookings: a refused one may be sent again, corrected."""


def drawn(here: Here, index: int) -> Odd:
    """The odd message number *index* of a seed; no other number has a say in it."""
    chance = random.Random(f"{here.seed} {index}")
    kind = chance.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]
    return replace(KINDS[kind][0](Draw(chance, index, here)), index=index, kind=kind)
