"""What the platform is told of a class's life, event by event, and which statements say something new."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from pydantic_core import to_json

from lectern import errors, i18n
from lectern.i18n import Text

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
    fields: Mapping[str, object] = field(default_factory=dict)
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
            **i18n.wire(str(self.fields["message"])),
        }
        return to_json({name: value for name, value in its.items() if value is not None}).decode()


@dataclass(frozen=True)
class _Pair:
    """Two events that take turns: *right* is the first of its kind, *again* each later one."""

    wrong: str
    right: str
    again: str
    before: str | None
    """Which of them holds before the first one is told."""

    @property
    def names(self) -> frozenset[str]:
        return frozenset({self.wrong, self.right, self.again})


_PAIRS = {
    name: pair
    for pair in (
        _Pair("interrupted", "on_air", "resumed", "interrupted"),
        _Pair("slate", "recording", "recording", "recording"),
        _Pair("not_ready", "ready", "ready", None),
    )
    for name in pair.names
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
    last = max(pair.names & known.keys(), key=lambda name: known[name][0], default=pair.before)
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


def numbered(
    heads: Mapping[str, Heads], statements: Iterable[ClassEvent], institutions: Mapping[str, str | None]
) -> list[ClassEvent]:
    """The events that *statements* make, with numbers and institutions; *heads* has what each class had before."""
    known: dict[str, dict[str, tuple[int, float]]] = {}
    found: list[ClassEvent] = []
    for one in statements:
        its = known.get(one.class_id)
        if its is None:
            its = known[one.class_id] = dict(heads.get(one.class_id, {}))
        for new in told(its, one):
            seq = 1 + max((number for number, _ in its.values()), default=0)
            its[new.event] = seq, new.at
            new.seq, new.institution_id = seq, institutions.get(one.class_id)
            found.append(new)
    return found
