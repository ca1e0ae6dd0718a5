"""Bookings without fault, sent between the odd ones: what each must be answered with."""

import json
from dataclasses import dataclass
from typing import Any

from tests.fuzz.odd_messages import Sending
from tests.fuzz.odd_values import FAR_S
from tests.stage import Stage

Answer = tuple[str, int]
SUCCESS: Answer = ("success", 0)
AIR_IN_S, AIR_S = 25.0, 12.0
"""Seconds between the booking of a class and its start, and seconds on air; a slow machine gets more notice yet."""

MISSED_S = 4.0
"""A class may begin late by so much on a machine that does all this beside it."""

OFTEN = ("old", "old", "old", "listed", "twice", "cancelled", "malformed", "ended", "soon", "fresh", "transcoded")


@dataclass
class Good:
    """A booking, and the answers of which it must get one."""

    kind: str
    class_id: str
    sendings: tuple[Sending, ...]
    expects: frozenset[Answer]
    sent_at: float = 0.0  # monotonic


class Goods:
    """Makes them, and remembers all that it made."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.made: dict[str, Good] = {}
        self.bodies: set[str] = set()
        self._record = stage.town.record("480P", "720P")

    def make(self, kind: str, *, on_channel: bool, notice_s: float = 0.0) -> Good:
        """A booking of *kind*; a class that is to be on air begins *notice_s* later."""
        starts = {"soon": 3_000.0, "ended": -600.0, "on air": AIR_IN_S + notice_s}
        length_s = AIR_S if kind == "on air" else 60
        record = self._stage.town.record("720P") if kind in {"fresh", "transcoded"} else self._record
        resolution = "720P" if kind in {"listed", "transcoded"} else None
        listed = ("480P", "720P") if kind == "listed" else ()
        booking: dict[str, Any] = self._stage.booking(
            record, resolution, starts_in_s=starts.get(kind, FAR_S), length_s=length_s, listed=listed
        )
        if kind == "malformed":
            del booking["start_time"]
        class_id, via = str(booking["class_id"]), "channel" if on_channel else "stream"
        bodies = [("order", booking)] * (2 if kind == "twice" else 1)
        bodies += [("cancel", {"cmd": "cancel", "class_id": class_id})] if kind == "cancelled" else []
        sendings = tuple(Sending(via, to, json.dumps(body).encode()) for to, body in bodies)  # type: ignore[arg-type]
        refused = {"malformed": 400, "ended": 410, "cancelled": 411}
        answers = {("fail", refused[kind])} if kind in refused else set()
        answers |= {SUCCESS} if kind not in {"malformed", "ended"} else set()
        good = self.made[class_id] = Good(kind, class_id, sendings, frozenset(answers))
        self.bodies |= {one.body.decode() for one in sendings if kind != "malformed"}
        return good

    def aired_wrongly(self) -> list[str]:
        """What is wrong with the classes that were to be on air by now."""
        wrong = []
        for one in (one for one in self.made.values() if one.kind == "on air"):
            pushes = [push for push in self._stage.pushes(one.class_id) if push.first_media_at is not None]
            seconds = sum((push.last_timestamp_ms or 0) - (push.first_timestamp_ms or 0) for push in pushes) / 1_000
            if len(pushes) != 1 or seconds < AIR_S - MISSED_S:
                wrong.append(f"{one.class_id} was on air in {len(pushes)} pushes, for {seconds:.0f} of {AIR_S:.0f} s")
        return wrong
