"""What the teacher takes of a streamer's report about a class that is over."""

from dataclasses import replace
from typing import Any

import pytest

from lectern.decide import placement
from lectern.decide import reports as decide
from lectern.model.facts import AsRun, Order
from lectern.model.plan import Changes
from lectern.model.views import DETAIL_TOLD, EventView
from lectern.states import BookingState
from lectern.wire.messages import Cancel, Release, Report
from lectern.wire.outgoing import Alarm, CancelResult, OrderResult
from tests.strategies import transcoders

SETTINGS = transcoders()
PART = AsRun(0, 1, "recording", 1_000.0, 1_600.0, 0.0, 600.0, 1_234_567, "s1")
READY = Order("c-1", BookingState.READY, "{}", 6666, None, 1_000, 1_600, streamer="s1", placement=1, promised_at=900)


def taken(order: Order, facts: decide.ReportFacts = decide.NO_FACTS, **fields: object) -> Changes:
    changes = Changes(SETTINGS, 1_700.0, orders={order.class_id: order})
    said = {"cmd": "ended", "class_id": "c-1", "streamer": "s1", "result": "success", "as_run": [PART.row()]}
    decide.take(changes, Report.model_validate({**said, **fields}), facts)
    return changes


CANCELLED = replace(READY, state=BookingState.CANCELLED)


@pytest.mark.parametrize(
    ("order", "fields", "state"),
    [
        (READY, {}, BookingState.AIRED),
        (replace(READY, streamer="s2", placement=2), {}, BookingState.READY),
        (CANCELLED, {"result": "fail", "code": 323}, BookingState.CANCELLED),
    ],
    ids=["its end", "it went to another, so that this closes nothing", "it was cancelled, and stays so"],
)
def test_what_was_really_sent_of_a_class_is_kept(order: Order, fields: dict[str, Any], state: BookingState) -> None:
    changes = taken(order, **fields)
    assert (changes.sent, changes.orders["c-1"].state) == ([("s1", "c-1", [PART])], state)


PREPARED: dict[str, Any] = {"cmd": "prepared", "as_run": None}
ASKED = replace(READY, state=BookingState.PLACED, promised_at=None)


def answers(changes: Changes) -> list[tuple[str, int]]:
    return [(one.message.result, one.message.code) for one in changes.sends if isinstance(one.message, OrderResult)]


@pytest.mark.parametrize(("more", "answer"), [({}, ("success", 0)), ({"result": "fail", "code": 318}, ("fail", 318))])
def test_a_booking_that_came_twice_before_its_answer_is_answered_twice(more: dict[str, Any], answer: object) -> None:
    changes = taken(replace(ASKED, end_time=1_701, deliveries=2), **PREPARED, **more)
    assert answers(changes) == [answer] * 2


@pytest.mark.parametrize(("order", "answer"), [(ASKED, []), (READY, [("success", 0)])], ids=["not yet", "answered"])
def test_a_booking_that_comes_again_is_answered_again_only_if_it_was_answered(order: Order, answer: object) -> None:
    changes = Changes(SETTINGS, 1_100.0, orders={"c-1": order})
    placement.answer_again(changes, order)
    assert answers(changes) == answer


@pytest.mark.parametrize(
    ("order", "answered"),
    [(READY, 0), (replace(READY, state=BookingState.CANCELLED), 2)],
    ids=["on its way", "cancelled"],
)
def test_a_repeated_cancel_is_answered_at_once_only_if_the_streamer_confirmed(order: Order, answered: int) -> None:
    changes = Changes(SETTINGS, 1_100.0, orders={"c-1": order})
    ends = {"c-1": (0, "cancelled", 0.0)} if answered else {}
    for _ in range(2):
        placement.cancel(changes, Cancel(class_id="c-1"), ends)
    assert [one.message.code for one in changes.sends if isinstance(one.message, CancelResult)] == [0] * answered


def test_only_that_all_classes_are_prepared_is_plain() -> None:
    """A failure needs to be known who else could take the class, and a revision of what it is one."""
    well = Report(cmd="prepared", class_id="c-1", streamer="s1", result="success")
    others = [well.model_copy(update=one) for one in ({"result": "fail"}, {"cmd": "ended"}, {"class_id": "c-1^1"})]
    assert decide.are_plain([well, well])
    assert not any(decide.are_plain([well, one]) for one in others)


TOO_LATE = {**PREPARED, "result": "fail", "code": 410, "message": "it ended before"}
ENDED: dict[str, tuple[Order, dict[str, Any], list[tuple[str, int]], BookingState]] = {
    "its streamer can air nothing of it any more": (ASKED, PREPARED, [("fail", 410)], BookingState.REFUSED),
    "it has not ended": (replace(ASKED, end_time=1_701), PREPARED, [("success", 0)], BookingState.READY),
    "its end is reported first": (ASKED, {}, [("fail", 410)], BookingState.AIRED),
    "it was promised, and goes to no other": (replace(ASKED, promised_at=900), TOO_LATE, [], BookingState.BROKEN),
}


@pytest.mark.parametrize("case", ENDED)
def test_no_success_is_answered_after_the_end_of_a_class(case: str) -> None:
    order, fields, answer, state = ENDED[case]
    changes = taken(order, **fields)
    assert (answers(changes), changes.orders["c-1"].state) == (answer, state)
    released = [one.message.class_id for one in changes.sends if isinstance(one.message, Release)]
    assert released == (["c-1"] if state is BookingState.REFUSED else [])


def test_a_part_that_cannot_be_read_is_noted_and_the_class_is_closed() -> None:
    changes = taken(READY, as_run=[{"url": "first"}, PART.row()])
    assert changes.sent == [("s1", "c-1", [PART])]
    assert "as-run not readable" in {one.what for one in changes.notes}
    assert changes.orders["c-1"].state is BookingState.AIRED


def alarms(changes: Changes) -> list[tuple[int, str]]:
    said = [one.message for one in changes.sends]
    return [(one.code, one.message) for one in said if isinstance(one, Alarm)]


GAPS = "10 min of 20 min were not sent: 19:00:00-19:10:00 the push was refused: no such stream; 1 session"


@pytest.mark.parametrize(
    ("fields", "state", "code"),
    [
        ({"message": "aired whole; 1 session; its end has come"}, BookingState.AIRED, None),
        ({"code": 329, "message": f"{GAPS}; its end has come"}, BookingState.AIRED_WITH_GAPS, 329),
        ({"result": "fail", "code": 321, "message": "not aired", "as_run": None}, BookingState.BROKEN, 321),
        ({"result": "fail", "code": 411, "message": "cancelled in the UI"}, BookingState.CANCELLED, None),
    ],
    ids=["whole", "gaps", "nothing", "cancelled"],
)
def test_a_class_ends_in_a_state_of_its_own_with_one_alarm_if_something_is_missing(
    fields: dict[str, Any], state: BookingState, code: int | None
) -> None:
    changes = taken(READY, **fields)
    order = changes.orders["c-1"]
    assert (order.state, order.message) == (state, fields["message"])
    assert alarms(changes) == ([] if code is None else [(code, f"c-1: {fields['message']}")])


LONG = replace(READY, end_time=2_200, streamer="s2", placement=2)
SECOND = AsRun(0, 1, "recording", 1_601.0, 2_200.0, 601.0, 599.0, 1_234_567, "s2")
OF_SECOND: dict[str, Any] = {"streamer": "s2", "placement": 2, "as_run": [SECOND.row()]}


def test_of_a_class_that_was_moved_counts_what_all_its_streamers_sent() -> None:
    facts = replace(decide.NO_FACTS, parts={"c-1": [PART]})
    whole = taken(LONG, facts, code=329, message=f"{GAPS}; its end has come", **OF_SECOND)
    assert whole.orders["c-1"].state is BookingState.AIRED
    assert whole.orders["c-1"].message == "aired whole; 2 sessions; its end has come", "each counts its own from 1"
    assert alarms(whole) == []
    moved = {"c-1": [EventView(1_590.0, "moved", "c-1", None, "teacher", "from s1 to s2: s1 is lost")]}
    early = replace(decide.NO_FACTS, parts={"c-1": [replace(PART, ends=1_560.0)]}, moved=moved)
    gaps = taken(LONG, early, code=329, message=f"{GAPS}; its end has come", **OF_SECOND).orders["c-1"]
    assert gaps.state is BookingState.AIRED_WITH_GAPS
    assert str(gaps.message).startswith("41 s of 20 min were not sent: ")
    assert "it was moved to another streamer" in str(gaps.message)


def test_what_the_first_streamer_of_a_class_tells_late_completes_its_story_without_another_alarm() -> None:
    over = replace(LONG, state=BookingState.AIRED_WITH_GAPS, code=329, message=f"{GAPS}; its end has come")
    changes = taken(over, replace(decide.NO_FACTS, parts={"c-1": [SECOND]}))
    assert changes.orders["c-1"].state is BookingState.AIRED
    assert alarms(changes) == []


def test_the_story_of_a_class_on_its_streamer_is_kept_in_bounds_and_only_what_belongs_there() -> None:
    events = [
        {"at": 1_000.0, "what": "push refused", "detail": "x" * 5_000},
        {"at": 1_001.0, "what": "lease granted", "detail": "not of this class"},
        {"at": 1_002.0, "what": "on air", "detail": "at 1.5 s", "class_id": "c-2", "host": "s9"},
        {"what": "on air"},
    ]
    changes = taken(READY, events=events)
    ((refused, on_air),) = changes.stories
    assert (refused.what, len(refused.detail)) == ("push refused", DETAIL_TOLD)
    assert (on_air.class_id, on_air.host) == ("c-1", "s1")
    assert "as-run not readable" in {one.what for one in changes.notes}
