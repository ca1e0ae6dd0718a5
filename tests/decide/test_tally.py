"""What is on air is counted as the accounts say it, class by class."""

from lectern.decide.account import Standing
from lectern.decide.tally import tally
from lectern.states import BookingState
from lectern.told import Booked, Found, Sending, Word

NOW = 1_764_010_000.0


def due(class_id: str, streamer: str | None, state: BookingState = BookingState.READY) -> Found:
    return Found(
        class_id, Booked(class_id, state, "1", NOW - 1, NOW + 60, 321, "no one listens", streamer, answered=True)
    )


def test_each_class_is_on_air_or_is_missing_with_the_reason() -> None:
    here = Word(NOW, {"a": Sending(True), "b": Sending(False, failures=2, why="refused")}, {}, ())
    gone = Word(NOW, {"d": Sending(True)}, {}, (), silent_s=40)
    classes = [due("a", "s1"), due("b", "s1"), due("c", None, BookingState.WAITING), due("d", "s2")]
    found = tally([*classes, due("e", "s1", BookingState.BROKEN)], {"s1": here, "s2": gone}, NOW)
    assert found.on_air == {"s1": 1}
    assert {one.class_id: one.standing for one in found.missing} == {
        "b": Standing.NOT_ON_AIR,
        "c": Standing.NOT_ON_AIR,
        "e": Standing.BROKEN,
    }
    assert [(one.class_id, one.standing) for one in found.unknown] == [("d", Standing.SILENT)]
    assert "refused" in found.missing[0].why
    assert "it waits for 1" in found.missing[1].why
    assert "321: no one listens" in found.missing[2].why
