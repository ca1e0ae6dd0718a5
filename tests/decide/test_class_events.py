"""What the platform is told of a class: each change once, in the order in which it was stated, and one end."""

import json
from dataclasses import replace
from typing import Any

import pytest

from lectern.decide import airing, reports
from lectern.decide.placement import Choice, cancel, reassign
from lectern.model.facts import AsRun, Order
from lectern.model.plan import Changes
from lectern.model.tables.teacher import CancelRow
from lectern.model.views import ClassEvent, EventView, numbered
from lectern.states import BookingState
from lectern.wire.messages import AiringEvent, AiringReport, Cancel, Release, Report
from lectern.wire.outgoing import Alarm, CancelResult
from lectern.wire.outgoing import ClassEvent as ClassEventMessage
from tests.decide.test_endings import START
from tests.decide.test_endings import row as part
from tests.decide.test_revisions import told
from tests.strategies import transcoders


def said(event: str, at_s: float = 0.0, since_s: float | None = None, class_id: str = "c-1") -> ClassEvent:
    since = None if since_s is None else START + since_s
    return ClassEvent(class_id, event, START + at_s, {"message": "why"}, since, START)


ON, OFF, BACK = said("on_air", 0.1), said("interrupted", 60), said("on_air", 72, 60)
SLATE, AGAIN = said("slate", 30), said("recording", 45, 30)


NEWS = [
    ([said("accepted"), said("accepted")], ["accepted"]),
    ([said("refused"), said("accepted"), said("ended")], ["refused"]),
    ([ON, said("ended", 600), OFF, said("ended", 601)], ["on_air", "ended"]),
    ([ON, ON], ["on_air"]),
    ([OFF], []),
    ([ON, OFF, BACK], ["on_air", "interrupted", "resumed"]),
    ([ON, OFF, OFF, BACK, BACK], ["on_air", "interrupted", "resumed"]),
    ([ON, BACK, OFF], ["on_air", "interrupted", "resumed"]),
    ([BACK, ON], ["on_air"]),
    ([AGAIN, SLATE], ["slate", "recording"]),
    ([SLATE, SLATE, AGAIN], ["slate", "recording"]),
    ([said("recording")], []),
    ([said("not_ready", -900), said("ready", -300)], ["not_ready", "ready"]),
    ([said("ready", -900), said("ready", -300), said("not_ready", -60)], ["ready", "not_ready"]),
    ([said("moved"), said("moved"), said("changed")], ["moved", "moved", "changed"]),
]


def test_a_statement_is_told_if_it_says_something_new() -> None:
    """Also if it comes twice, or after the one behind it: an end says when that began which it ends."""
    found = [(statements, numbered({}, statements)) for statements, _ in NEWS]
    assert [(statements, [one.event for one in its]) for statements, its in found] == NEWS
    assert all(one.seq == place for _, its in found for place, one in enumerate(its, start=1))


def test_each_class_counts_its_own_events_on_from_those_before() -> None:
    heads = {"c-1": {"accepted": (1, START - 900), "on_air": (4, START), "interrupted": (5, START + 60)}}
    found = numbered(heads, [BACK, replace(BACK, class_id="c-2"), said("ended", 600)])
    assert [(one.class_id, one.seq, one.event) for one in found] == [
        ("c-1", 6, "resumed"),
        ("c-2", 1, "on_air"),
        ("c-1", 7, "ended"),
    ]


def test_an_event_says_how_late_how_long_and_where() -> None:
    first, cut, again = (json.loads(one.body) for one in numbered({}, [said("on_air", 2.5), BACK]))
    assert (first["late_s"], first["message"], first["code"]) == (2.5, "on air, 2.5 s late", 0)
    assert (cut["event"], cut["at"], cut["code"], cut["message"]) == ("interrupted", START + 60, 321, "why")
    assert (again["lost_s"], again["position_s"]) == (12, 72)
    for body in (first, cut, again):
        assert ClassEventMessage.model_validate(body).model_extra == {}


# -- what a streamer states, by the as-run of its playout


def stated_as(event: AiringEvent, at_s: float, since_s: float | None = None, why: str = "cut") -> airing.Statement:
    return airing.Statement(event, START + at_s, why, None if since_s is None else START + since_s)


SLATE_SENT, FIRST = [part(0, 9), part(9, 20, "slate")], stated_as("on_air", 0)
SENT: dict[str, tuple[list[dict[str, Any]], str, float, list[airing.Statement]]] = {
    "nothing": ([], "connecting", 1, []),
    "a try": ([part(0, 0.5)], "trying", 1, []),
    "on air": ([part(0, 9)], "on_air", 9.1, [FIRST]),
    "a short cut": ([part(0, 9), part(10.5, 20)], "on_air", 20, [FIRST]),
    "cut": ([part(0, 9), part(11, 20)], "on_air", 20, [stated_as("on_air", 11, 9)]),
    "off": ([part(0, 9)], "trying", 11, [stated_as("interrupted", 9)]),
    "a receiver that hangs": ([part(0, 9)], "on_air", 11, [stated_as("interrupted", 9, why=airing.SLOW)]),
    "slate": (SLATE_SENT, "on_air", 20, [FIRST, stated_as("slate", 9)]),
    "back": ([*SLATE_SENT, part(20, 30)], "on_air", 30, [FIRST, stated_as("recording", 20, 9)]),
}


@pytest.mark.parametrize("case", SENT)
def test_a_streamer_states_what_its_playout_has_sent(case: str) -> None:
    """Interrupted is a class of which nothing was taken for 2 s, whatever the reason."""
    parts, state, at_s, expected = SENT[case]
    assert airing.statements({"as_run": parts, "state": state, "why": None}, START + at_s, "cut") == expected


def test_a_class_that_was_moved_from_its_slate_to_its_recording_is_told_so() -> None:
    """The streamer that has it now knows of no slate; the platform would take it for the picture until the end."""
    status = {"as_run": [part(60, 70)], "state": "on_air", "why": None}
    found = airing.statements(status, START + 70, None, is_moved=True)
    theirs = [said(one.event, one.at - START) for one in found]
    after_slate, after_cut = (numbered({}, [ON, *before, *theirs]) for before in ([SLATE, OFF], [OFF]))
    assert [one.event for one in after_slate][2:] == ["interrupted", "resumed", "recording"]
    assert [one.event for one in after_cut] == ["on_air", "interrupted", "resumed"]


def test_a_statement_is_news_once_and_again_after_a_cut_that_nobody_saw() -> None:
    on = airing.Statement("on_air", START)
    assert airing.is_news(on, None)
    assert not airing.is_news(on, on)
    assert not airing.is_news(airing.Statement("on_air", START + 12, since=START), on)
    assert airing.is_news(airing.Statement("on_air", START + 12, since=START + 9), on)
    assert airing.is_news(airing.Statement("interrupted", START + 9), on)


# -- what the teacher makes of it

READY = Order(
    "c-1", BookingState.READY, "{}", 6666, None, START, START + 600, streamer="s1", placement=2, promised_at=1.0
)
WHOLE = AsRun(0, 1, "recording", START, START + 600, 0.0, 600.0)


def changed(order: Order, at_s: float = 30.0) -> Changes:
    return Changes(transcoders(), START + at_s, orders={order.class_id: order})


def report(sent_s: float | None = None, **fields: Any) -> Report:
    """What s1 says at the end of its second placement, of which it sent the first *sent_s* seconds."""
    its = {"cmd": "ended", "class_id": "c-1", "streamer": "s1", "result": "success", "placement": 2}
    return Report.model_validate({**its, "as_run": None if sent_s is None else [vars(sent(sent_s))], **fields})


def sent(seconds: float) -> AsRun:
    """The first *seconds* of the class."""
    return replace(WHOLE, ends=START + seconds, sent_s=seconds)


def stated(changes: Changes) -> list[dict[str, Any]]:
    return [json.loads(one.body) for one in changes.class_events]


@pytest.mark.parametrize(
    ("streamer", "placement", "heard", "released"),
    [("s1", 2, ["on_air"], []), ("s1", 1, [], [("s1", 1)]), ("s0", 1, [], [("s0", 1)]), ("s2", 2, [], [])],
)
def test_only_streamer_that_has_class_says_how_it_is_aired_and_one_that_had_it_is_told_again_to_release_it(
    streamer: str, placement: int, heard: list[str], released: list[tuple[str, int]]
) -> None:
    """What one says that has lost it comes too late: its part was closed when the class was moved.

    A Redis that was started again, or a copy that took over, may have lost the release: both would air the class. What
    is of no older placement is left alone: a teacher whose database was put back does not know of the last moves.
    """
    changes, said = changed(READY), {"class_id": "c-1", "event": "on_air", "at": START}
    reports.aired(changes, AiringReport.model_validate({**said, "streamer": streamer, "placement": placement}))
    assert [one["event"] for one in stated(changes)] == heard
    again = [(f"streamer:{name}", Release(class_id="c-1", placement=number).to_json()) for name, number in released]
    assert [(one.target, one.message.to_json()) for one in changes.sends] == again
    over = changed(replace(READY, state=BookingState.AIRED))
    reports.aired(over, AiringReport.model_validate({**said, "streamer": "s1", "placement": 2}))
    assert (stated(over), over.sends) == ([], [])


def test_a_class_that_leaves_its_lost_streamer_is_interrupted_then_moved() -> None:
    changes = changed(READY)
    choice = Choice({"s1": 1, "s2": 0}, {})
    reassign(changes, [READY], choice, "s1 is lost", refused=False)
    assert choice.loads == {"s1": 1, "s2": 1}
    assert [(one["event"], one["message"]) for one in stated(changes)] == [
        ("interrupted", "s1 is lost"),
        ("moved", "from s1 to s2: s1 is lost"),
    ]
    assert (stated(changes)[1]["from_streamer"], stated(changes)[1]["streamer"]) == ("s1", "s2")


MOVED = {"c-1": [EventView(START + 100, "moved", "c-1", None, "teacher", "from s0 to s1")]}
GAPS: dict[str, Any] = {"code": 329, "message": "5 min of 10 min were not sent"}
PUSH_GAPS: dict[str, Any] = {**GAPS, "events": [{"at": START + 9, "what": "push refused", "detail": "no"}]}
NOTHING: dict[str, Any] = {"result": "fail", "code": 321, "as_run": None}
NOT_PREPARED: dict[str, Any] = {**NOTHING, "cmd": "prepared", "code": 410}
IN_THE_UI: dict[str, Any] = {"result": "fail", "code": 411}
AIRED, WITH_GAPS = BookingState.AIRED, BookingState.AIRED_WITH_GAPS
BROKEN, CANCELLED = BookingState.BROKEN, BookingState.CANCELLED
ENDS: dict[str, tuple[dict[str, Any], float, dict[str, list[EventView]], BookingState, int | None, str | None]] = {
    "whole": ({"message": "aired whole"}, 601, {}, AIRED, None, "whole"),
    "gaps": (GAPS, 601, {}, WITH_GAPS, 329, "with_gaps"),
    "gaps of a push": (PUSH_GAPS, 601, {}, WITH_GAPS, 329, "with_gaps"),
    "moved on air": (GAPS, 601, MOVED, WITH_GAPS, 329, None),
    "not aired": (NOTHING, 601, {}, BROKEN, 321, "not_aired"),
    "not aired, without a code": ({**NOTHING, "code": 0}, 601, {}, BROKEN, 321, "not_aired"),
    "may be retried": (NOTHING, 30, {}, BROKEN, 321, None),
    "moved, not aired": (NOTHING, 601, MOVED, BROKEN, 321, None),
    "moved, not prepared": (NOT_PREPARED, 601, {}, BROKEN, 410, "with_gaps"),
    "in the UI": (IN_THE_UI, 30, {}, CANCELLED, None, "cancelled"),
    "in the UI, its push goes on": ({**IN_THE_UI, "as_run": None}, 30, {}, CANCELLED, None, None),
}
"""What is reported, when, of which class; its state then, the code of its alarm, and the outcome that is told."""


@pytest.mark.parametrize("case", ENDS)
def test_the_end_of_a_class_is_told_once_it_is_known_with_an_alarm_if_something_is_missing(case: str) -> None:
    """An end that another report may still correct is told by the sweep, if none comes."""
    fields, at_s, moved, state, code, outcome = ENDS[case]
    changes = changed(READY, at_s)
    said = report(300.0 if fields.get("code") == 329 else 600.0, **fields)
    before = {"c-1": [replace(WHOLE, ends=START + 1)]} if moved or said.cmd == "prepared" else {}
    reports.take(changes, said, reports.ReportFacts(Choice({}, {}), {}, before, moved))
    order = changes.orders["c-1"]
    assert (order.state, order.code) == (state, code or said.code)
    assert order.message == said.message or moved
    assert [(one.code, one.message) for one in told(changes, Alarm)] == [(code, f"c-1: {order.message}")] * bool(code)
    ends = stated(changes)
    assert [one["outcome"] for one in ends] == ([] if outcome is None else [outcome])
    if outcome == "whole":
        (end,) = ends
        assert (end["sent_s"], end["missing_s"], end["slate_s"], end["sessions"]) == (600, 0, 0, 1)
        assert (end["began_at"], end["ended_at"]) == (START, START + 600)
        assert (end["start_time"], end["end_time"]) == (START, START + 600)


@pytest.mark.parametrize("moved", [MOVED, {}], ids=["another streamer", "its own, just started anew"])
def test_end_of_class_cancelled_on_air_waits_for_what_its_streamers_sent(moved: dict[str, list[EventView]]) -> None:
    """The cancel is answered at once."""
    changes = changed(replace(READY, state=BookingState.CANCELLED, promised_at=1.0))
    decide = reports.ReportFacts(Choice({}, {}), {("c-1", "s1"): 1}, {}, moved)
    reports.take(changes, report(result="fail", code=411), decide)
    assert [one.target for one in changes.sends] == ["cancel_result"]
    assert stated(changes) == []
    if moved:
        reports.take(changes, report(60.0, result="fail", code=411), decide)
        assert stated(changes) == [], "the other one's part is still to come"
    reports.tell_ends(changes, [changes.orders["c-1"]], {"c-1": [sent(60.0)]})
    (end,) = stated(changes)
    assert (end["outcome"], end["message"], end["sent_s"]) == ("cancelled", "cancelled", 60)


def test_end_of_class_whose_cancel_nobody_confirmed_waits_for_what_was_sent() -> None:
    """Its streamer may be back soon; that the cancel was not confirmed is answered at once, and said of the end."""
    changes = changed(replace(READY, state=BookingState.CANCELLED, promised_at=1.0), START + 600)
    row = CancelRow(class_id="c-1", streamer="s1", cancelled_at=START, told_at=START, until=START + 600)
    reports.close_cancels(changes, [row], {})
    assert [one.target for one in changes.sends] == ["cancel_result"]
    assert (stated(changes), changes.table[-1]["where"]) == ([], "s1")
    reports.take(changes, report(60.0, code=329), reports.NO_FACTS)
    (end,) = stated(changes)
    assert (end["outcome"], end["code"], end["sent_s"]) == ("cancelled", 410, 60)
    assert "did not confirm it" in end["message"]


def test_two_streamers_that_tell_their_parts_in_one_batch_are_counted_together() -> None:
    changes = changed(READY, START + 600)
    decide = reports.ReportFacts(Choice({}, {}), {}, {}, MOVED)
    for streamer, placement, begins, ends in (("s1", 2, 400, 600), ("s0", 1, 0, 300)):
        part = vars(replace(WHOLE, begins=START + begins, ends=START + ends))
        reports.take(changes, report(code=329, streamer=streamer, placement=placement, as_run=[part]), decide)
    assert (changes.orders["c-1"].message or "").startswith("1 min 40 s of 10 min were not sent")


def test_what_was_sent_of_a_broken_class_is_no_class_that_was_not_aired() -> None:
    changes = changed(replace(READY, state=BookingState.BROKEN, code=323, message="s1 is lost"))
    reports.tell_ends(changes, [changes.orders["c-1"]], {"c-1": [sent(60.0), sent(30.0)]})
    (end,) = stated(changes)
    assert (end["outcome"], end["code"], end["sent_s"], end["ended_at"]) == ("with_gaps", 323, 60, START + 60)


@pytest.mark.parametrize("sent_s", [0.0, 20.0])
def test_a_cancel_after_one_in_the_ui_is_not_answered_that_nothing_was_sent(sent_s: float) -> None:
    """How much was sent is not known yet, so that the event `ended` is put off, too."""
    changes = changed(READY, 30)
    said = report(result="fail", code=411, message="cancelled in the UI")
    reports.take(changes, said, reports.NO_FACTS)
    assert stated(changes) == []
    later = Changes(changes.settings, START + 31, orders=changes.orders)
    cancel(later, Cancel(class_id="c-1"), {}, ())
    assert told(later, CancelResult) == []
    later.rows.clear()
    said = report(sent_s or None, result="fail", code=411)
    reports.take(later, said, reports.ReportFacts(Choice({}, {}), {("c-1", "s1"): 1}))
    assert [one.sent_s for one in told(later, CancelResult)] == [sent_s]
