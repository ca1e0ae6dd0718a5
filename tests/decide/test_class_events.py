"""What the platform is told of a class: each change once, in the order in which it was stated, and one end."""

import json
from dataclasses import replace
from typing import Any

import pytest

from lectern.decide import airing, reports
from lectern.decide.placement import Choice, reassign
from lectern.model.facts import AsRun, Order
from lectern.model.plan import Changes
from lectern.model.tables.teacher import CancelRow
from lectern.model.views import ClassEvent, EventView, numbered
from lectern.states import BookingState
from lectern.wire.messages import AiringEvent, AiringReport, Report
from lectern.wire.outgoing import ClassEvent as ClassEventMessage
from tests.strategies import transcoders

START = 1_764_010_800.0


def said(event: str, at_s: float = 0.0, since_s: float | None = None, class_id: str = "c-1") -> ClassEvent:
    since = None if since_s is None else START + since_s
    return ClassEvent(class_id, event, START + at_s, {"message": "why"}, since, START)


def events(*statements: ClassEvent) -> list[tuple[int, str, float]]:
    return [(one.seq, one.event, one.at - START) for one in numbered({}, statements)]


ON, OFF, BACK = said("on_air", 0.1), said("interrupted", 60), said("on_air", 72, 60)
SLATE, AGAIN = said("slate", 30), said("recording", 45, 30)


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
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
    ],
)
def test_a_statement_is_told_if_it_says_something_new(statements: list[ClassEvent], expected: list[str]) -> None:
    """Also if it comes twice, or after the one behind it: an end says when that began which it ends."""
    assert [event for _, event, _ in events(*statements)] == expected
    assert [seq for seq, _, _ in events(*statements)] == list(range(1, len(expected) + 1))


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


def part(begins: float, ends: float, source: str = "recording") -> dict[str, Any]:
    fields = {"from": START + begins, "to": START + ends, "position_s": begins, "sent_s": ends - begins}
    return {"url": 0, "session": 1, "source": source, **fields}


@pytest.mark.parametrize(
    ("parts", "state", "at_s", "expected"),
    [
        ([], "connecting", 1, []),
        ([part(0, 0.5)], "trying", 1, []),
        ([part(0, 9)], "on_air", 9.1, [("on_air", 0, None)]),
        ([part(0, 9), part(10.5, 20)], "on_air", 20, [("on_air", 0, None)]),
        ([part(0, 9), part(12, 20)], "on_air", 20, [("on_air", 12, 9)]),
        ([part(0, 9)], "trying", 11.5, [("interrupted", 9, None)]),
        ([part(0, 9)], "on_air", 11.5, [("interrupted", 9, None)]),
        ([part(0, 9), part(9, 20, "slate")], "on_air", 20, [("on_air", 0, None), ("slate", 9, None)]),
        ([part(0, 9), part(9, 20, "slate"), part(20, 30)], "on_air", 30, [("on_air", 0, None), ("recording", 20, 9)]),
    ],
    ids=["nothing", "a try", "on air", "a short cut", "cut", "off", "a receiver that hangs", "slate", "back"],
)
def test_a_streamer_states_what_its_playout_has_sent(
    parts: list[dict[str, Any]], state: str, at_s: float, expected: list[tuple[AiringEvent, float, float | None]]
) -> None:
    """Interrupted is a class of which nothing was taken for 2 s, whatever the reason."""
    found = airing.statements({"as_run": parts, "state": state, "why": None}, START + at_s, "cut")
    assert found == [
        airing.Statement(event, START + at, found[n].why, None if since is None else START + since)
        for n, (event, at, since) in enumerate(expected)
    ]


def test_a_statement_is_news_once_and_again_after_a_cut_that_nobody_saw() -> None:
    on = airing.Statement("on_air", START)
    assert airing.is_news(on, None)
    assert not airing.is_news(on, on)
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


@pytest.mark.parametrize(("streamer", "placement", "heard"), [("s1", 2, ["on_air"]), ("s1", 1, []), ("s2", 2, [])])
def test_only_streamer_that_has_class_says_how_it_is_aired(streamer: str, placement: int, heard: list[str]) -> None:
    """What one says that has lost it comes too late: its part was closed when the class was moved."""
    changes, said = changed(READY), {"class_id": "c-1", "event": "on_air", "at": START}
    reports.aired(changes, AiringReport.model_validate({**said, "streamer": streamer, "placement": placement}))
    assert [one["event"] for one in stated(changes)] == heard
    over = changed(replace(READY, state=BookingState.AIRED))
    reports.aired(over, AiringReport.model_validate({**said, "streamer": "s1", "placement": 2}))
    assert stated(over) == []


def test_a_class_that_leaves_its_lost_streamer_is_interrupted_then_moved() -> None:
    changes = changed(READY)
    reassign(changes, [READY], Choice({"s1": 1, "s2": 0}, {}), "s1 is lost", refused=False)
    assert [(one["event"], one["message"]) for one in stated(changes)] == [
        ("interrupted", "s1 is lost"),
        ("moved", "from s1 to s2: s1 is lost"),
    ]
    assert (stated(changes)[1]["from_streamer"], stated(changes)[1]["streamer"]) == ("s1", "s2")


MOVED = {"c-1": [EventView(START + 100, "moved", "c-1", None, "teacher", "from s0 to s1")]}
GAPS = {"code": 329, "message": "5 min of 10 min were not sent"}


@pytest.mark.parametrize(
    ("fields", "at_s", "moved", "outcome"),
    [
        ({}, 601, {}, "whole"),
        (GAPS, 601, {}, "with_gaps"),
        (GAPS, 601, MOVED, None),
        ({"result": "fail", "code": 321, "as_run": None}, 601, {}, "not_aired"),
        ({"result": "fail", "code": 321, "as_run": None}, 30, {}, None),
        ({"result": "fail", "code": 321, "as_run": None}, 601, MOVED, None),
        ({"cmd": "prepared", "result": "fail", "code": 410, "as_run": None}, 601, {}, "with_gaps"),
        ({"result": "fail", "code": 411}, 30, {}, "cancelled"),
        ({"result": "fail", "code": 411, "as_run": None}, 30, {}, None),
    ],
    ids=[
        *("whole", "gaps", "moved on air", "not aired", "may be retried", "moved, not aired", "moved, not prepared"),
        *("in the UI", "in the UI, its push goes on"),
    ],
)
def test_the_end_is_told_once_it_is_known(
    fields: dict[str, Any], at_s: float, moved: dict[str, list[EventView]], outcome: str | None
) -> None:
    """An end that another report may still correct is told by the sweep, if none comes."""
    changes = changed(READY, at_s)
    said = report(300.0 if fields.get("code") == 329 else 600.0, **fields)
    before = {"c-1": [replace(WHOLE, ends=START + 1)]} if moved or said.cmd == "prepared" else {}
    decide = reports.ReportFacts(Choice({}, {}), {}, before, moved)
    reports.take(changes, said, decide)
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
    assert stated(changes) == []
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
    reports.tell_ends(changes, [changes.orders["c-1"]], {"c-1": [sent(60.0)]})
    (end,) = stated(changes)
    assert (end["outcome"], end["code"], end["sent_s"]) == ("with_gaps", 323, 60)
