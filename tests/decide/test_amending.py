"""A streamer gives a class its change at once, and reports it when that is what is aired, or cannot be any more."""

from dataclasses import replace
from typing import Any

import pytest

from lectern import errors
from lectern.decide import change as decide
from lectern.model.facts import Airing
from lectern.model.streamer_plan import StreamerChanges
from lectern.settings import StreamerSettings
from lectern.states import AiringState
from lectern.wire.messages import Amend, Report
from tests.decide.test_revisions import told

NOW, AHEAD_S = 1_764_010_000.0, 7200.0
ON_AIR = Airing("c-1", "6", AiringState.ON_AIR, "rtmp://push.example/live/c", NOW - 60, NOW + 60, 6, None, placement=3)
LONGER = replace(ON_AIR, class_id="c-1^2", state=AiringState.READY, end_time=NOW + 600, placement=1)
ASKED = Amend(class_id="c-1", revision="c-1^2", placement=3, revision_placement=1)
APPLIED, CHANGED = replace(LONGER, state=AiringState.CANCELLED), replace(ON_AIR, end_time=NOW + 600)


@pytest.fixture
def changes() -> StreamerChanges:
    return StreamerChanges(StreamerSettings.load(_env_file=None, streamer_name="s1"), NOW)


def reports(changes: StreamerChanges) -> list[tuple[str, int, int, int | None]]:
    """What the teacher hears of revisions: which, the code, its placement, and that of its class."""
    said = [one for one in told(changes, Report) if one.cmd == "amended"]
    return [(one.class_id, one.code, one.placement, one.of_placement) for one in said]


def settled(changes: StreamerChanges) -> list[object]:
    """The revisions that wait no more."""
    said = [one for one in changes.rows.values() if "unconfirmed_since" in (one.after or {})]
    return [one.key["class_id"] for one in said if one.key["class_id"] not in changes.unconfirmed]


def amend(changes: StreamerChanges, one: Airing | None, revision: Airing | None, *waiting: Airing) -> dict[str, Airing]:
    return decide.amend(changes, ASKED, one, revision, waiting, AHEAD_S)


def test_a_change_of_a_class_on_air_is_reported_when_the_playout_confirms_it(changes: StreamerChanges) -> None:
    assert amend(changes, ON_AIR, LONGER) == {"c-1": CHANGED, "c-1^2": APPLIED}
    assert (reports(changes), changes.unconfirmed) == ([], ["c-1^2"])
    decide.confirm(changes, APPLIED, CHANGED, is_aired=False)
    assert (reports(changes), changes.unconfirmed) == ([], ["c-1^2"])
    decide.confirm(changes, APPLIED, CHANGED, is_aired=True)
    assert (reports(changes), changes.unconfirmed) == ([("c-1^2", 0, 1, 3)], [])


NEAR, FAR, TOMORROW, LATER = ((NOW + at, NOW + at + 60) for at in (60, 3 * 3600, 90_000, 93_600))


@pytest.mark.parametrize(
    ("before", "after", "is_reported"),
    [(TOMORROW, LATER, True), (NEAR, FAR, False), (FAR, NEAR, False)],
    ids=["never in the playout's hours", "out of them", "into them"],
)
def test_a_change_of_which_no_playout_knows_is_reported_with_the_commit(
    changes: StreamerChanges, before: tuple[float, float], after: tuple[float, float], is_reported: bool
) -> None:
    its = replace(ON_AIR, state=AiringState.READY, start_time=before[0], end_time=before[1])
    amend(changes, its, replace(LONGER, start_time=after[0], end_time=after[1]))
    assert (reports(changes), changes.unconfirmed) == (([("c-1^2", 0, 1, 3)], []) if is_reported else ([], ["c-1^2"]))


LATE = {
    "not here": None,
    "aired": replace(ON_AIR, state=AiringState.AIRED),
    "broken": replace(ON_AIR, state=AiringState.BROKEN),
    "released": replace(ON_AIR, state=AiringState.CANCELLED),
    "its end has come": replace(ON_AIR, end_time=NOW),
    "it was moved away and back": replace(ON_AIR, placement=4),
}


@pytest.mark.parametrize("one", LATE.values(), ids=LATE)
def test_a_change_that_cannot_be_applied_is_reported_as_such_and_changes_nothing(
    changes: StreamerChanges, one: Airing | None
) -> None:
    assert {name: its.state for name, its in amend(changes, one, LONGER).items()} == {"c-1^2": AiringState.CANCELLED}
    assert (reports(changes), changes.amended) == ([("c-1^2", errors.ENDED.number, 1, 3)], [])


@pytest.mark.parametrize("is_back", [False, True], ids=["it ended before", "it came back without the change"])
def test_a_class_without_its_change_is_not_taken_for_changed(changes: StreamerChanges, is_back: bool) -> None:
    one = replace(ON_AIR, placement=5) if is_back else replace(CHANGED, state=AiringState.AIRED)
    decide.confirm(changes, APPLIED, one, is_aired=is_back)
    code = errors.NOT_BOOKED if is_back else errors.ENDED
    assert (reports(changes), settled(changes)) == ([("c-1^2", code.number, 1, one.placement)], ["c-1^2"])


def test_a_change_that_a_later_one_replaces_is_not_reported_by_itself(changes: StreamerChanges) -> None:
    """Together with one before, or after it; the teacher answers both when the later one is aired."""
    first = replace(LONGER, class_id="c-1^1", end_time=NOW + 300)
    asked = ASKED.model_copy(update={"revision": first.class_id})
    changed = decide.amend(changes, asked, ON_AIR, first, (), AHEAD_S)["c-1"]
    amend(changes, changed, LONGER)
    assert (changes.unconfirmed, reports(changes)) == (["c-1^2"], [])
    amend(changes, changed, LONGER, replace(first, state=AiringState.CANCELLED))
    assert (settled(changes), reports(changes)) == (["c-1^1"], [])


AGAIN: dict[str, tuple[Airing, Airing | None, list[Airing], list[Any]]] = {
    "still waits": (CHANGED, APPLIED, [APPLIED], []),
    "was confirmed": (CHANGED, APPLIED, [], [("c-1^2", 0, 1, 3)]),
    "is over": (replace(CHANGED, state=AiringState.AIRED), APPLIED, [], [("c-1^2", errors.ENDED.number, 1, 3)]),
    "is not here": (ON_AIR, None, [], [("c-1^2", errors.NOT_BOOKED.number, 1, 3)]),
}


@pytest.mark.parametrize("case", AGAIN)
def test_a_change_that_is_told_again_gets_its_report_again(changes: StreamerChanges, case: str) -> None:
    one, revision, waiting, expected = AGAIN[case]
    assert amend(changes, one, revision, *waiting) == {}
    assert (reports(changes), changes.amended) == (expected, [])
