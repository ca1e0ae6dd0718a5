"""Bookings without fault, sent between the odd ones: what each must be answered with."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fuzz.odd_messages import Sending
from tests.fuzz.odd_values import FAR_S
from tests.stage import Stage
from town.recordings import Publish

Answer = tuple[str, int]
SUCCESS: Answer = ("success", 0)
RECORDS = 4
"""So many records are booked again and again; others are new each time."""

AIR_IN_S, AIR_S = 25.0, 12.0
"""Seconds between the booking of a class and its start, and seconds on air; a slow machine gets more notice yet."""

MISSED_S = 4.0
"""A class may begin late by so much on a machine that does all this beside it."""


@dataclass
class Good:
    """A booking, and the answers of which it must get one."""

    kind: str
    class_id: str
    sendings: tuple[Sending, ...]
    expects: frozenset[Answer]
    sent_at: float = 0.0  # monotonic


@dataclass
class Goods:
    """Makes them, and remembers all that it made."""

    stage: Stage
    notice_s: float = 0.0
    made: dict[str, Good] = field(default_factory=dict)
    bodies: set[str] = field(default_factory=set)
    _records: list[int] = field(default_factory=list)
    _turn: int = 0

    def __post_init__(self) -> None:
        self._records = [self.stage.town.record("480P", "720P") for _ in range(RECORDS)]

    @property
    def record(self) -> int:
        """A record that is on the origin, and soon in the cache."""
        self._turn += 1
        return self._records[self._turn % RECORDS]

    def make(self, kind: str, *, on_channel: bool) -> Good:
        """A booking of *kind*."""
        good = KINDS[kind](self)
        if not on_channel:
            good.sendings = tuple(Sending("stream", one.target, one.body) for one in good.sendings)
        self.made[good.class_id] = good
        self.bodies |= {one.body.decode() for one in good.sendings if kind != "malformed"}
        return good

    def plain(self, kind: str, *, starts_in_s: float = FAR_S, expects: Answer = SUCCESS, **fields: Any) -> Good:
        """A booking of the old kind."""
        return self.of(kind, self.stage.booking(self.record, starts_in_s=starts_in_s, length_s=60), expects, **fields)

    def of(self, kind: str, booking: dict[str, Any], *expects: Answer, **fields: Any) -> Good:
        """A booking that is written already, changed by *fields*; what is None is taken out."""
        whole = {name: value for name, value in {**booking, **fields}.items() if value is not None}
        sending = Sending("channel", "order", json.dumps(whole).encode())
        return Good(kind, str(booking["class_id"]), (sending,), frozenset(expects))

    def listed(self) -> Good:
        """A booking whose resolution is listed."""
        booking = self.stage.booking(self.record, "720P", starts_in_s=FAR_S, length_s=60, listed=("480P", "720P"))
        return self.of("listed", booking, SUCCESS)

    def transcoded(self) -> Good:
        """A booking of a new record, whose rendition must be transcoded first."""
        record = self.stage.town.record("720P")
        return self.of("transcoded", self.stage.booking(record, "720P", starts_in_s=FAR_S, length_s=60), SUCCESS)

    def fresh(self) -> Good:
        """A booking of a new record, which must be downloaded."""
        return self.of("fresh", self.stage.booking(self.stage.town.record(), starts_in_s=FAR_S, length_s=60), SUCCESS)

    def twice(self) -> Good:
        """The same booking two times."""
        good = self.plain("twice")
        return Good("twice", good.class_id, good.sendings * 2, good.expects)

    def cancelled(self) -> Good:
        """A booking and its cancel."""
        good = self.plain("cancelled")
        cancel = Sending("channel", "cancel", json.dumps({"cmd": "cancel", "class_id": good.class_id}).encode())
        return Good("cancelled", good.class_id, (*good.sendings, cancel), frozenset({SUCCESS, ("fail", 411)}))

    def on_air(self) -> Good:
        """A class that is on air in between."""
        return self.of(
            "on air", self.stage.booking(self.record, starts_in_s=AIR_IN_S + self.notice_s, length_s=AIR_S), SUCCESS
        )

    def aired_by(self) -> float:
        """When the last class that was to be on air is over, monotonic."""
        sent = [one.sent_at for one in self.made.values() if one.kind == "on air"]
        return max(sent, default=0.0) + AIR_IN_S + self.notice_s + AIR_S + MISSED_S

    def aired_wrongly(self) -> list[str]:
        """What is wrong with the classes that were to be on air by now."""
        return [words for one in self.made.values() if one.kind == "on air" for words in self._aired(one.class_id)]

    def _aired(self, class_id: str) -> list[str]:
        pushes = [push for push in self.stage.pushes(class_id) if push.first_media_at is not None]
        seconds = sum(map(_media_s, pushes))
        if len(pushes) == 1 and seconds >= AIR_S - MISSED_S:
            return []
        return [f"{class_id} was on air in {len(pushes)} pushes, for {seconds:.0f} of {AIR_S:.0f} s"]


def _media_s(push: Publish) -> float:
    return ((push.last_timestamp_ms or 0) - (push.first_timestamp_ms or 0)) / 1_000


KINDS: Mapping[str, Callable[[Goods], Good]] = {
    "canary": lambda goods: goods.plain("canary"),
    "old": lambda goods: goods.plain("old"),
    "soon": lambda goods: goods.plain("soon", starts_in_s=3_000.0),
    "listed": Goods.listed,
    "transcoded": Goods.transcoded,
    "fresh": Goods.fresh,
    "twice": Goods.twice,
    "cancelled": Goods.cancelled,
    "malformed": lambda goods: goods.plain("malformed", expects=("fail", 400), start_time=None),
    "ended": lambda goods: goods.plain("ended", starts_in_s=-600.0, expects=("fail", 410)),
    "on air": Goods.on_air,
}
OFTEN = (*["old"] * 3, *["listed"] * 2, "twice", "cancelled", "malformed", "ended", "soon", "fresh", "transcoded")


def counted(goods: Goods) -> Counter[str]:
    """How many of each kind were made."""
    return Counter(one.kind for one in goods.made.values())
