"""What people are shown of a class, as values from databases and heartbeats; and what the platform is told."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple

from pydantic import PlainSerializer, PlainValidator
from pydantic_core import to_json

from lectern import errors, i18n
from lectern.i18n import Text, labelled, packed, unpacked
from lectern.model.facts import Airing, AsRun, Usage
from lectern.model.tables.teacher import RenditionRow
from lectern.states import BookingState

Sentence = Annotated[str, PlainSerializer(packed), PlainValidator(unpacked)]
"""A sentence that keeps its id in a heartbeat."""


@dataclass(frozen=True)
class Booked:
    """A class as its teacher has it, for people; times are epoch seconds, URLs have no secrets."""

    class_id: str
    state: BookingState
    stem: str
    start_time: float
    end_time: float
    code: int | None
    message: str | None
    streamer: str | None
    answered: bool
    lost_since: float | None = None  # since when its streamer is lost
    institution_id: str | None = None
    video_url: str | None = None
    push_url: str | None = None
    received_at: float | None = None
    decided_at: float | None = None  # when the row last changed
    by: str = ""  # who booked it


@dataclass(frozen=True)
class Gap:
    """A time (epoch seconds) of a class in which its recording was not sent, for *missing_s* seconds in all."""

    begins: float
    ends: float
    missing_s: float
    why: Sentence
    detail: Sentence = ""  # the words of whoever refused it
    is_slate: bool = False  # the slate was sent

    def reason(self) -> str:
        """Why it was not sent."""
        return labelled(self.why, self.detail) if self.detail else self.why

    def text(self) -> str:
        """The gap in a sentence, with both ends."""
        return Text("{begins:clock}-{ends:clock} {why}", begins=self.begins, ends=self.ends, why=self.reason())


@dataclass(frozen=True)
class Sending:
    """How a class in its time is sent, as its streamer last saw it; times are epoch seconds."""

    on_air: bool
    since: float | None = None
    position_s: float | None = None  # place in the recording
    failures: int = 0  # attempts to connect since it was last on air
    cuts: int = 0  # how often it was cut after it had been on air
    why: Sentence | None = None  # the last thing that went wrong
    slate: bool = False
    is_playout_away: bool = False  # the playout of its streamer does not answer
    gaps: tuple[Gap, ...] = ()  # the last ones since its start
    behind_s: float = 0.0  # how late it is sent
    sent_bytes: int = 0  # in all sessions


@dataclass(frozen=True)
class Check:
    """What the last check before the start found; empty *reds* mean ready. *at* is epoch seconds."""

    at: float
    reds: Sentence


@dataclass(frozen=True)
class OpenAlarm:
    """An open incident, and the classes that it names; times are epoch seconds."""

    code: int
    host: str
    count: int
    last_at: float
    message: Sentence
    classes: tuple[str, ...] = ()
    first_at: float | None = None


DETAIL_TOLD = 120
"""Number of characters of an event that a streamer tells its teacher: a message may be 64 KiB long."""


@dataclass(frozen=True)
class EventView:
    """A recorded event; *at* is epoch seconds."""

    at: float
    what: str
    class_id: str | None
    stem: str | None
    host: str
    detail: str


@dataclass(frozen=True)
class ClassView:
    """What is known of a class when somebody asks."""

    class_id: str
    booked: Booked | None = None
    making: RenditionRow | None = None  # the rendition that it waits for
    cited: Airing | None = None  # as its streamer has it; its URLs have no secrets
    streamer: str | None = None  # the host that *cited* comes from
    sending: Sending | None = None
    unheard: str | None = None  # why nobody knows what the streamer does; None if it was heard of lately
    check: Check | None = None
    dead_air: str = ""  # places where its recording is black, frozen or silent
    alarms: Sequence[OpenAlarm] = ()
    as_run: Sequence[AsRun] = ()
    kept_since: float | None = None
    is_malformed: bool = False
    events: Sequence[EventView] = field(default=())
    ready_by: float | None = None  # when its recording will be there, if it waits for that (epoch seconds)

    @property
    def end_time(self) -> float:
        """When the class ends, in epoch seconds; 0 if it is unknown."""
        known = self.booked or self.cited
        return known.end_time if known else 0.0

    @property
    def host(self) -> str:
        """The streamer that has the class, as the word for a sentence."""
        return self.streamer or (self.booked.streamer if self.booked else None) or "its streamer"


@dataclass(frozen=True)
class Network:
    """What a streamer's network is used for, in bytes a second; None: without a limit, or not known."""

    push: float = 0.0  # what the classes on air need, and those of the next minutes
    download: float | None = 0.0  # what the downloads may take together
    bound: float | None = None  # what pushes and downloads may take together


@dataclass(frozen=True)
class StreamerStatus:
    """A streamer's last heartbeat: what it sends, what its checks found, its open alarms, and its limits."""

    at: float  # epoch seconds, by the clock that all hosts share
    sendings: Mapping[str, Sending]  # of the classes that should be on air
    checks: Mapping[str, Check]  # of the classes that begin soon
    alarms: Sequence[OpenAlarm]  # the newest ones
    alarms_number: int = 0
    due: int = 0  # number of classes that should be on air
    used: Usage = field(default=Usage(0, 0))
    bound: Usage = field(default=Usage(0, 0))
    dead_air: Mapping[str, Sentence] = field(default_factory=dict)  # the dead air of its classes
    ahead: Mapping[str, Sequence[float]] = field(default_factory=dict)  # the next 24 hours in bytes
    ready_by: Mapping[str, float] = field(default_factory=dict)  # when what classes wait for will be there
    booked_now_s: tuple[float, float] = (0.0, 0.0)
    """Seconds until a recording of no length, and one of an hour, would be there that is booked now; 0: not known."""

    bandwidth: Sentence = ""  # what its downloads may take of the network, if there are any
    network: Network = field(default=Network())
    silent_s: float | None = None  # seconds since its last heartbeat, if that is too long


FINAL = frozenset({"refused", "ended"})
"""Events after which nothing more is told of a class."""

Heads = Mapping[str, tuple[int, float]]
"""The events that a class has had: of each kind the last one's number, and its time (epoch seconds)."""


@dataclass(slots=True)
class ClassEvent:
    """An event of a class, *at* epoch seconds; *seq* is 0 until it is known that it says something new.

    *since* is when that began which it ends: of ``on_air`` the silence before it, of ``recording`` the slate. Whoever
    tells an end tells its beginning too, because that statement may come later, or never.
    """

    class_id: str
    event: str
    at: float
    fields: Mapping[str, Any] = field(default_factory=dict)
    since: float | None = None
    begins: float = 0.0  # the class's start
    seq: int = 0
    institution_id: str | None = None

    @property
    def body(self) -> str:
        """The message that is sent."""
        its = {
            "cmd": "class_event",
            "class_id": self.class_id,
            "institution_id": self.institution_id,
            "seq": self.seq,
            "event": self.event,
            "at": round(self.at, 3),
            **self.fields,
            **i18n.wire(self.fields["message"]),
        }
        return to_json({name: value for name, value in its.items() if value is not None}).decode()


class _Pair(NamedTuple):
    """Two events that take turns: *right* is the first of its kind, *again* each later one."""

    wrong: str
    right: str
    again: str
    before: str | None
    """Which of them holds before the first one is told."""


_PAIRS = {
    name: pair
    for pair in (
        _Pair("interrupted", "on_air", "resumed", "interrupted"),
        _Pair("slate", "recording", "recording", "recording"),
        _Pair("not_ready", "ready", "ready", None),
    )
    for name in pair[:3]
}
_ONCE = frozenset({"accepted", *FINAL})
_CODES = {
    "interrupted": errors.AIRING_BROKEN.number,
    "slate": errors.NO_RECORDING.number,
    "not_ready": errors.NOT_READY_FOR_START.number,
}


def told(known: Heads, one: ClassEvent) -> list[ClassEvent]:
    """The events that the statement *one* makes after those *known*, without numbers: none if it says nothing new.

    Nothing follows a final event. Of a pair only a change is told: a statement that comes twice, or after a later one,
    is none, and one that ends what nobody has told of makes two.
    """
    if not FINAL.isdisjoint(known) or (one.event in _ONCE and one.event in known):
        return []
    pair = _PAIRS.get(one.event)
    if pair is None:
        return [one]
    last = max(known.keys() & pair[:3], key=lambda name: known[name][0], default=pair.before)
    last_at = known[last][1] if last is not None and last in known else None
    if one.event == pair.wrong:
        return [] if last == pair.wrong or one.at < (last_at or 0.0) else [_told(one, pair.wrong, one.at)]
    if last is None or last == pair.wrong:
        return [_told(one, pair.right if last_at is None else pair.again, one.at, last_at)]
    if one.since is None or one.since < (last_at or 0.0):
        return []
    return [_told(one, pair.wrong, one.since), _told(one, pair.again, one.at, one.since)]


def _told(one: ClassEvent, event: str, at: float, since: float | None = None) -> ClassEvent:
    """An event of a pair, in words and numbers."""
    fields = {**one.fields, "code": _CODES.get(event, 0)}
    if event == "on_air":
        late_s = round(at - one.begins, 3)
        said = Text("on air, {late_s:length} late", late_s=late_s) if late_s >= 1 else Text("on air")
        fields |= {"message": said, "late_s": late_s}
    elif event in {"resumed", "recording"}:
        lost_s = round(at - (since or at), 3)
        said = Text("it is taken again after {lost_s:length}", lost_s=lost_s)
        if event == "recording":
            said = Text("its recording is sent again after {lost_s:length}", lost_s=lost_s)
        fields |= {"message": said, "lost_s": lost_s, "position_s": round(at - one.begins, 3)}
    elif event == "ready":
        fields["message"] = Text("ready")
    return replace(one, event=event, at=at, since=None, fields=fields)


def numbered(heads: Mapping[str, Heads], statements: Iterable[ClassEvent]) -> list[ClassEvent]:
    """The events that *statements* make, with numbers; *heads* has what each class had before."""
    known = {class_id: dict(its) for class_id, its in heads.items()}
    found: list[ClassEvent] = []
    for one in statements:
        its = known.setdefault(one.class_id, {})
        for new in told(its, one):
            seq = 1 + max((number for number, _ in its.values()), default=0)
            its[new.event] = seq, new.at
            new.seq = seq
            found.append(new)
    return found
