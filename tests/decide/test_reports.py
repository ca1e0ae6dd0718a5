"""What the teacher takes of a streamer's report about a class that is over."""

from dataclasses import replace
from typing import Any

import pytest

from lectern.decide import placement
from lectern.decide import reports as decide
from lectern.model.facts import AsRun, Order
from lectern.model.plan import MAX_DELIVERIES, Changes
from lectern.model.views import DETAIL_TOLD, EventView
from lectern.states import BookingState
from lectern.wire.messages import Cancel, Release, Report
from lectern.wire.outgoing import Alarm, CancelResult, OrderResult
from tests import strategies
from tests.decide.test_outlook import in_chinese
from tests.decide.test_revisions import told

SETTINGS = strategies.transcoders()
URL = "http://origin.example/6666.flv"
PART = AsRun(0, 1, "recording", 1_000.0, 1_600.0, 0.0, 600.0, 1_234_567, "s1")
READY = Order("c-1", BookingState.READY, "{}", 6666, None, 1_000, 1_600, streamer="s1", placement=1, promised_at=900)


def taken(order: Order, facts: decide.ReportFacts = decide.NO_FACTS, **fields: object) -> Changes:
    changes = Changes(SETTINGS, 1_700.0, orders={order.class_id: order})
    said = {"cmd": "ended", "class_id": "c-1", "streamer": "s1", "result": "success", "as_run": [PART.row()]}
    decide.take(changes, Report.model_validate({**said, **fields}), facts)
    assert "streamer:" not in {one.target for one in changes.sends}
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
    return [(one.result, one.code) for one in told(changes, OrderResult)]


@pytest.mark.parametrize(("more", "answer"), [({}, ("success", 0)), ({"result": "fail", "code": 318}, ("fail", 318))])
def test_a_booking_that_came_twice_before_its_answer_is_answered_twice(more: dict[str, Any], answer: object) -> None:
    changes = taken(replace(ASKED, end_time=1_701, deliveries=2), **PREPARED, **more)
    assert answers(changes) == [answer] * 2


@pytest.mark.parametrize(("order", "answer"), [(ASKED, []), (READY, [("success", 0)])], ids=["not yet", "answered"])
def test_a_booking_that_comes_again_is_answered_again_only_if_it_was_answered(order: Order, answer: object) -> None:
    changes = Changes(SETTINGS, 1_100.0, orders={"c-1": order})
    placement.answer_again(changes, order)
    assert answers(changes) == answer


WAITS, ENDED_ONCE = replace(ASKED, state=BookingState.WAITING, streamer=None), {"c-1": (0, "cancelled", 9.0)}
OFF = BookingState.CANCELLED
CANCELS: dict[str, tuple[Order | None, placement.Ends, set[str], list[int], BookingState | None, bool]] = {
    "unknown": (None, {}, set(), [404], None, False),
    "refused": (replace(READY, state=BookingState.REFUSED), {}, set(), [404], BookingState.REFUSED, False),
    "over": (replace(READY, state=BookingState.AIRED), {}, set(), [410], BookingState.AIRED, False),
    "its end has come": (replace(READY, end_time=1_100), {}, set(), [410], BookingState.READY, False),
    "it waits": (WAITS, {}, set(), [0], OFF, False),
    "on its streamer": (READY, {}, set(), [], OFF, True),
    "broken, and may be retried": (replace(READY, state=BookingState.BROKEN, code=321), {}, set(), [], OFF, True),
    "cancelled, and told": (CANCELLED, ENDED_ONCE, set(), [0], OFF, False),
    "not confirmed yet": (CANCELLED, ENDED_ONCE, {"c-1"}, [], OFF, False),
    "cancelled in the UI": (CANCELLED, {}, set(), [], OFF, True),
    "never on a streamer": (replace(CANCELLED, streamer=None), {}, set(), [0], OFF, False),
}


@pytest.mark.parametrize("case", CANCELS)
def test_a_cancel_is_answered_at_once_unless_a_streamer_has_to_confirm_it(case: str) -> None:
    """And as often as it comes."""
    order, ends, unconfirmed, answered, state, is_released = CANCELS[case]
    changes = Changes(SETTINGS, 1_100.0, orders={} if order is None else {"c-1": order})
    for _ in range(2):
        placement.cancel(changes, Cancel(class_id="c-1"), ends, unconfirmed)
    assert [one.code for one in told(changes, CancelResult)] == answered * 2
    assert [one.target for one in changes.sends if isinstance(one.message, Release)] == ["streamer:s1"] * is_released
    assert [one.state for one in changes.orders.values()] == [state] * (state is not None)
    assert [one.code or 0 for one in changes.orders.values()] == [(order and order.code) or 0] * (state is not None)


def test_a_cancel_that_came_for_days_while_its_streamer_was_away_is_not_answered_for_each_time() -> None:
    """A platform that asks every few seconds would get tens of thousands at once, and all others behind them."""
    waits = replace(decide.NO_FACTS, unconfirmed={("c-1", "s1"): 50_000})
    changes = taken(CANCELLED, waits, result="fail", code=411, as_run=None)
    assert [one.code for one in told(changes, CancelResult)] == [0] * MAX_DELIVERIES


def test_a_booking_whose_cancel_came_first_is_cancelled_and_one_that_is_known_is_looked_at_again() -> None:
    first, other, known = (strategies.booking(one) for one in ("c-1", "c-2", "c-3"))
    changes = Changes(SETTINGS, 1_100.0, orders={"c-3": Order.of(known)})
    assert placement.without_cancelled(changes, [first, other, known], {"c-1", "c-3"}) == [other, known]
    assert (answers(changes), changes.orders["c-1"].state) == ([("fail", 411)], OFF)


def test_only_that_all_classes_are_prepared_is_plain() -> None:
    """A failure needs to be known who else could take the class, and a revision of what it is one."""
    well = Report(cmd="prepared", class_id="c-1", streamer="s1", result="success")
    others = [well.model_copy(update=one) for one in ({"result": "fail"}, {"cmd": "ended"}, {"class_id": "c-1^1"})]
    assert decide.is_plain(well)
    assert not any(map(decide.is_plain, others))


TOO_LATE = {**PREPARED, "result": "fail", "code": 410, "message": "it ended before"}
ENDS_NOW, PROMISED = replace(ASKED, end_time=1_700), replace(ASKED, promised_at=900)
ENDED: dict[str, tuple[Order, dict[str, Any], list[tuple[str, int]], BookingState, bool]] = {
    "its streamer can air nothing of it any more": (ENDS_NOW, PREPARED, [("fail", 410)], BookingState.REFUSED, True),
    "it has not ended": (replace(ASKED, end_time=1_701), PREPARED, [("success", 0)], BookingState.READY, False),
    "its end is reported first": (ENDS_NOW, {}, [("fail", 410)], BookingState.AIRED, False),
    "it was promised, and goes to no other": (PROMISED, TOO_LATE, [], BookingState.BROKEN, False),
    "nobody else is there": (replace(PROMISED, end_time=1_701), TOO_LATE, [], BookingState.BROKEN, True),
}


@pytest.mark.parametrize("case", ENDED)
def test_no_success_is_answered_after_the_end_of_a_class(case: str) -> None:
    order, fields, answer, state, is_released = ENDED[case]
    changes = taken(order, **fields)
    assert (answers(changes), changes.orders["c-1"].state) == (answer, state)
    released = [(one.target, one.message.class_id) for one in changes.sends if isinstance(one.message, Release)]
    assert released == [("streamer:s1", "c-1")] * is_released
    assert ("accepted" in {one.event for one in changes.class_events}) is (answer == [("success", 0)])


@pytest.mark.parametrize(("order", "fields"), [(READY, PREPARED), (replace(READY, state=BookingState.AIRED), {})])
def test_a_report_that_says_nothing_new_changes_nothing(order: Order, fields: dict[str, Any]) -> None:
    changes = taken(order, **fields)
    assert (changes.orders, changes.sends, changes.notes) == ({"c-1": order}, [], [])


@pytest.mark.parametrize(("message", "said"), [("cached", "prepared"), ("", "prepared"), ("the slate is sent", None)])
def test_a_booking_is_answered_with_the_sentence_of_its_streamer_if_it_has_one(message: str, said: str | None) -> None:
    changes = taken(replace(ASKED, end_time=1_701), **PREPARED, message=message)
    (answer,) = told(changes, OrderResult)
    assert answer.message == (said or message)
    assert changes.notes[-1].detail == (f"s1: {message}" if message else "s1")
    assert message != "cached" or in_chinese([changes.notes[-1].detail])


def alarms(changes: Changes) -> list[tuple[int, str]]:
    return [(one.code, one.message) for one in told(changes, Alarm)]


GAPS = "10 min of 20 min were not sent: 19:00:00-19:10:00 the push was refused: no such stream; 1 session"


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
    assert changes.orders["c-1"].message == "aired whole; 2 sessions; its end has come"
    assert alarms(changes) == []
    short = replace(SECOND, ends=2_100.0, sent_s=499.0)
    order = taken(over, replace(decide.NO_FACTS, parts={"c-1": [short]})).orders["c-1"]
    assert (order.state, order.code, str(order.message)[:11]) == (over.state, 329, "1 min 41 s ")


def test_the_story_of_a_class_on_its_streamer_is_kept_in_bounds_and_only_what_belongs_there() -> None:
    events = [
        {"at": 1_000.0, "what": "push refused", "detail": "x" * 5_000},
        {"at": 1_001.0, "what": "lease granted", "detail": "not of this class"},
        {"at": 1_002.0, "what": "on air", "detail": "at 1.5 s", "class_id": "c-2", "host": "s9"},
        {"what": "on air"},
    ]
    changes = taken(READY, events=events, as_run=[{"url": "first"}, PART.row()])
    ((refused, on_air),) = changes.stories
    assert (refused.what, len(refused.detail)) == ("push refused", DETAIL_TOLD)
    assert (on_air.class_id, on_air.host) == ("c-1", "s1")
    assert [one.what for one in changes.notes].count("as-run not readable") == 2, "of an event, and of a part"
    assert in_chinese(["as-run not readable"])
    assert (changes.sent, changes.orders["c-1"].state) == ([("s1", "c-1", [PART])], BookingState.AIRED)


LATE_S = decide.UNENDED_S
UNREPORTED: dict[str, tuple[Order, BookingState, list[tuple[int, str]]]] = {
    "it waits": (replace(ASKED, state=BookingState.WAITING), BookingState.REFUSED, [(410, "refused")]),
    "nobody was ready": (ASKED, BookingState.REFUSED, [(410, "refused")]),
    "its report may come": (replace(READY, end_time=1_700 - LATE_S), BookingState.READY, []),
    "it never came": (replace(READY, end_time=1_699 - LATE_S), BookingState.BROKEN, [(321, "ended")]),
}


@pytest.mark.parametrize("case", UNREPORTED)
def test_a_class_whose_end_nobody_reports_is_closed_with_an_alarm(case: str) -> None:
    order, state, said = UNREPORTED[case]
    changes = Changes(SETTINGS, 1_700.0, orders={"c-1": order})
    decide.close_unreported(changes, [order], {})
    assert changes.orders["c-1"].state is state
    assert [code for code, _ in alarms(changes)] == [code for code, _ in said]
    assert [one.event for one in changes.class_events] == [event for _, event in said]
    assert len(changes.leaves) == (order.state is BookingState.WAITING)
    assert all(one["where"] == "s1" for one in changes.table if one["decision"] == BookingState.BROKEN)


def test_a_silent_class_is_told_to_its_streamer_again_and_noted_once() -> None:
    others = [replace(READY, class_id=id_, payload=strategies.booking(id_).payload, url=URL) for id_ in ("c-1", "c-2")]
    changes = Changes(SETTINGS, 1_100.0, orders={one.class_id: one for one in others})
    decide.resend_ends(changes, others, {"c-2"})
    assert [one.class_id for one in changes.sends] == ["c-1", "c-2"]
    assert [(one.what, one.class_id) for one in changes.notes] == [(decide.TOLD_AGAIN, "c-1")]
    assert in_chinese([decide.TOLD_AGAIN])
