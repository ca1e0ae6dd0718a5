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
    said = [one.message for one in changes.sends if isinstance(one.message, Report)]
    return [(one.class_id, one.code, one.placement, one.of_placement) for one in said if one.cmd == "amended"]


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


def test_a_change_of_a_class_that_no_playout_knows_yet_is_reported_with_the_commit(changes: StreamerChanges) -> None:
    """Neither at its old time nor at the new one: it is tomorrow's."""
    day = replace(ON_AIR, state=AiringState.READY, start_time=NOW + 90_000, end_time=NOW + 90_060)
    amend(changes, day, replace(LONGER, start_time=NOW + 93_600, end_time=NOW + 93_660))
    assert (reports(changes), changes.unconfirmed) == ([("c-1^2", 0, 1, 3)], [])


@pytest.mark.parametrize("hours", [3, -3])
def test_a_class_that_is_moved_out_of_the_playout_s_hours_or_into_them_is_confirmed_first(
    changes: StreamerChanges, hours: int
) -> None:
    near, far = (NOW + 60, NOW + 120), (NOW + 3 * 3600, NOW + 3 * 3600 + 60)
    before, after = (near, far) if hours > 0 else (far, near)
    its = replace(ON_AIR, state=AiringState.READY, start_time=before[0], end_time=before[1])
    amend(changes, its, replace(LONGER, start_time=after[0], end_time=after[1]))
    assert (reports(changes), changes.unconfirmed) == ([], ["c-1^2"])


@pytest.mark.parametrize(
    "one",
    [
        None,
        replace(ON_AIR, state=AiringState.AIRED),
        replace(ON_AIR, state=AiringState.BROKEN),
        replace(ON_AIR, state=AiringState.CANCELLED),
        replace(ON_AIR, end_time=NOW),
        replace(ON_AIR, placement=4),
    ],
    ids=["not here", "aired", "broken", "released", "its end has come", "it was moved away and back"],
)
def test_a_change_that_cannot_be_applied_is_reported_as_such_and_changes_nothing(
    changes: StreamerChanges, one: Airing | None
) -> None:
    assert {name: its.state for name, its in amend(changes, one, LONGER).items()} == {"c-1^2": AiringState.CANCELLED}
    assert (reports(changes), changes.amended) == ([("c-1^2", errors.ENDED.number, 1, 3)], [])


@pytest.mark.parametrize(
    ("one", "is_aired", "code"),
    [
        (replace(CHANGED, state=AiringState.AIRED), False, errors.ENDED),
        (replace(ON_AIR, placement=5), True, errors.NOT_BOOKED),
    ],
    ids=["it ended before", "it came back as its teacher knew it, without the change"],
)
def test_a_class_without_its_change_is_not_taken_for_changed(
    changes: StreamerChanges, one: Airing, is_aired: bool, code: errors.ErrorCode
) -> None:
    decide.confirm(changes, APPLIED, one, is_aired=is_aired)
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


@pytest.mark.parametrize(
    ("revision", "one", "waiting", "expected"),
    [
        (APPLIED, CHANGED, [APPLIED], []),
        (APPLIED, CHANGED, [], [("c-1^2", 0, 1, 3)]),
        (APPLIED, replace(CHANGED, state=AiringState.AIRED), [], [("c-1^2", errors.ENDED.number, 1, 3)]),
        (None, ON_AIR, [], [("c-1^2", errors.NOT_BOOKED.number, 1, 3)]),
    ],
    ids=["still waits", "was confirmed", "is over", "is not here"],
)
def test_a_change_that_is_told_again_gets_its_report_again(
    changes: StreamerChanges, revision: Airing | None, one: Airing, waiting: list[Airing], expected: list[Any]
) -> None:
    assert amend(changes, one, revision, *waiting) == {}
    assert reports(changes) == expected
    assert changes.amended == []
