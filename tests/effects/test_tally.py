"""What the platform of the trial cluster says of its classes."""

from dataclasses import dataclass

from town.cluster.tally import tally
from town.recordings import Publish

NOW = 1_764_010_800.0


@dataclass(frozen=True)
class Class:
    """A class of half a minute that was booked 40 s before its start."""

    id: str
    start: float

    @property
    def end(self) -> float:
        return self.start + 30

    @property
    def booked_at(self) -> float:
        return self.start - 40


def test_each_class_is_counted_as_what_it_came_to() -> None:
    names = ("whole", "cut", "missing", "refused", "unanswered", "on air", "new")
    starts = dict.fromkeys(names, NOW - 100) | {"on air": NOW - 10, "new": NOW + 30}
    answers = {
        one: [{"result": "fail" if one == "refused" else "success", "received_at": starts[one] - 39}] * (one != "new")
        for one in names
        if one != "unanswered"
    }
    answers["whole"] *= 2
    began = {"whole": 30.0, "cut": 12.0}
    publishes = {one: [pushed(one, NOW - 100, NOW - 100 + took)] for one, took in began.items()}
    publishes["on air"] = [pushed("on air", NOW - 10, None)]
    found = tally([Class(one, starts[one]) for one in names], answers, publishes, NOW)
    assert (found.booked, dict(found.answered)) == (7, {2: 1, 1: 4, 0: 2})
    assert (found.refused, found.on_air, found.whole) == (1, 1, 1)
    assert (found.cut, found.missing, found.late) == (["cut (12 s)"], ["missing"], ["unanswered"])
    assert "1 on air, 1 aired whole, 1 cut, 1 missing" in found.line()


def pushed(name: str, first: float, last: float | None) -> Publish:
    return Publish(name, 1, "live", "1.flv", first, False, first_media_at=first, last_media_at=last, ended_at=last)
