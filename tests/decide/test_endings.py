"""How a class ends on its streamer: the state, the code and the message of its row and of its report are one truth."""

from dataclasses import replace
from typing import Any

import pytest

from lectern import errors
from lectern.decide import airing
from lectern.decide.account import of_playout, without_playout
from lectern.model.facts import Airing, AsRun
from lectern.model.streamer_plan import ANY_PLACEMENT, AS_RUN_TOLD, EVENTS_TOLD, StreamerChanges
from lectern.model.views import EventView
from lectern.settings import StreamerSettings
from lectern.states import AiringState
from lectern.wire.messages import Release, Report
from lectern.wire.parser import MAX_BODY_BYTES
from tests.decide.test_revisions import told

SETTINGS = StreamerSettings.load(_env_file=None, streamer_name="streamer1")
START, END = 1_764_010_000.0, 1_764_011_000.0
ON_AIR = Airing("c-1", "6666", AiringState.ON_AIR, "rtmp://p/live/c-1", START, END, 6666, None)
OVER, SHORT = "its end has come", "its recording is over"


def row(begins: float, ends: float, source: str = "recording", session: int = 1) -> dict[str, Any]:
    fields = {"from": START + begins, "to": START + ends, "position_s": begins, "sent_s": ends - begins}
    return {"url": 0, "session": session, "source": source, "bytes": 1_000_000, **fields}


def ended(
    *rows: dict[str, Any], why: str = OVER, events: tuple[EventView, ...] = (), one: Airing = ON_AIR
) -> tuple[StreamerChanges, Report]:
    changes = StreamerChanges(SETTINGS, END)
    airing.ended(changes, "c-1", one, events, {"as_run": rows, "why": why, "last": "no such stream"})
    (said,) = (one.message for one in changes.sends)
    assert isinstance(said, Report)
    return changes, said


WHOLE, GAPS = "aired whole; 1 session; its end has come", "of 16 min 40 s were not sent"
SENT: dict[str, tuple[list[dict[str, Any]], str, int, str]] = {
    "whole": ([row(0, 1_000)], OVER, 0, WHOLE),
    "its playout stood still at its end": ([row(0, 1_000)], airing.CANCELLED, 0, WHOLE),
    "5 s": ([row(0, 500), row(505, 1_000)], OVER, 0, "aired whole; 1 session"),
    "5.1 s": ([row(0, 500), row(505.1, 1_000)], OVER, 329, f"5.1 s {GAPS}"),
    "late": ([row(13, 1_000)], OVER, 329, f"13 s {GAPS}"),
    "short recording": ([row(0, 980)], SHORT, 329, f"20 s {GAPS}"),
    "slate": ([row(0, 600), row(600, 1_000, "slate")], OVER, 329, f"6 min 40 s {GAPS}"),
    "only slate": ([row(0, 1_000, "slate")], OVER, 321, "not aired; the slate was sent for 1000 s: no such"),
    "nothing": ([], OVER, 321, "not aired: no such stream"),
}
STATES = {0: AiringState.AIRED, 329: AiringState.AIRED_WITH_GAPS, 321: AiringState.BROKEN}


@pytest.mark.parametrize("case", SENT)
def test_a_class_ends_as_what_was_sent_of_it(case: str) -> None:
    rows, why, code, message = SENT[case]
    changes, said = ended(*rows, why=why)
    after = changes.moved[-1]
    assert (after.state, after.message) == (STATES[code], said.message)
    assert said.message.startswith(message)
    assert (said.result, said.code) == ("fail" if code == 321 else "success", code)
    sent_s = sum(one["sent_s"] for one in rows if one["source"] == "recording")
    assert changes.missing_s == ([] if code == 321 else pytest.approx([1_000 - sent_s]))


LOST = replace(ON_AIR, state=AiringState.WAITING, lost=True)
"""It was ready, and its file is being downloaded again: the playout airs what there is."""


def test_a_class_without_its_recording_is_refused_with_the_slate_that_was_sent_unless_it_was_promised() -> None:
    """It was moved on air, or answered because its slate comes first: its teacher counts what its viewers saw."""
    changes, said = ended(row(993, 1_000, "slate"), one=replace(LOST, lost=False, placement=2))
    assert changes.moved[-1].state is AiringState.REFUSED
    assert (said.cmd, said.result, said.code, said.placement) == ("prepared", "fail", 410, 2)
    assert [(part["source"], part["sent_s"]) for part in said.as_run or ()] == [("slate", 7)]
    changes, said = ended(row(0, 900, "slate"), row(900, 1_000), one=LOST)
    assert (changes.moved[-1].state, said.result, said.code) == (AiringState.AIRED_WITH_GAPS, "success", 329)
    assert len(said.as_run or ()) == 2


def as_it_was(state: AiringState, **fields: Any) -> Airing:
    return replace(ON_AIR, state=state, placement=2, **fields)


READY, BROKEN = (as_it_was(state) for state in (AiringState.READY, AiringState.BROKEN))
CLOSED: dict[str, tuple[Airing, list[AiringState], list[tuple[str, int]], str]] = {
    "never ready": (replace(LOST, lost=False), [AiringState.REFUSED], [("prepared", 410)], ""),
    "promised": (LOST, [AiringState.READY, AiringState.BROKEN], [("ended", 321)], "nothing was sent"),
    "ready": (READY, [AiringState.BROKEN], [("ended", 321)], "nothing was sent"),
    "on air": (ON_AIR, [AiringState.BROKEN], [("ended", 321)], "nobody knows how much"),
    "its end is reported": (BROKEN, [], [], ""),
    "over": (as_it_was(AiringState.AIRED), [], [], ""),
}


@pytest.mark.parametrize("case", CLOSED)
def test_a_class_whose_end_has_passed_is_closed_late_by_what_was_promised(case: str) -> None:
    one, moved, said, why = CLOSED[case]
    changes = StreamerChanges(SETTINGS, END + 60)
    airing.close_late(changes, one, is_known=True)
    assert [its.state for its in changes.moved] == moved
    assert reports(changes) == said
    assert all(why in (its.message or "") for its in changes.moved[-1:])
    assert changes.cited == ({} if case == "over" else {"6666": -1})
    unknown = StreamerChanges(SETTINGS, END + 60)
    airing.close_late(unknown, READY)
    assert "nobody knows how much" in (unknown.moved[-1].message or "")


def reports(changes: StreamerChanges) -> list[tuple[str, int]]:
    return [(one.cmd, one.code) for one in told(changes, Report)]


AIRED, GIVEN_UP = AiringState.AIRED, {"6666": -1}


@pytest.mark.parametrize(
    ("one", "state", "left_s", "moved", "is_reported", "cited"),
    [
        (READY, AIRED, 0, [AiringState.ON_AIR, AIRED], True, GIVEN_UP),
        (BROKEN, AIRED, 0, [AiringState.ON_AIR, AIRED], True, GIVEN_UP),
        (ON_AIR, AIRED, 0, [AIRED], True, GIVEN_UP),
        (as_it_was(AIRED), AiringState.BROKEN, 0, [], False, {}),
        (as_it_was(AiringState.CANCELLED), AIRED, 0, [], False, {}),
        (READY, AiringState.BROKEN, 9, [AiringState.BROKEN], True, {}),
        (ON_AIR, AiringState.BROKEN, 0, [AiringState.BROKEN], True, GIVEN_UP),
        (replace(BROKEN, message="why"), AiringState.BROKEN, 0, [AiringState.BROKEN], False, GIVEN_UP),
        (replace(BROKEN, message="before"), AiringState.BROKEN, 9, [AiringState.BROKEN], True, {}),
    ],
)
def test_a_class_is_closed_once_and_keeps_its_rendition_while_it_may_be_retried(
    one: Airing, state: AiringState, left_s: float, moved: list[AiringState], is_reported: bool, cited: dict[str, int]
) -> None:
    changes = StreamerChanges(SETTINGS, END - left_s)
    airing.close(changes, one, state, "why")
    assert [its.state for its in changes.moved] == moved
    assert (len(reports(changes)), changes.cited) == (is_reported, cited)


OFF = errors.CANCELLED.number
REFUSED = as_it_was(AiringState.REFUSED, code=318, message="no")
RELEASED: dict[str, tuple[Airing | None, int | None, float, AiringState | None, int | None, bool]] = {
    "it never came": (None, None, 0, None, None, True),
    "it never came, and was moved": (None, 2, 0, None, None, False),
    "it is to come": (READY, None, -1, AiringState.CANCELLED, OFF, True),
    "it begins": (READY, None, 0, AiringState.CANCELLED, OFF, False),
    "it is on air": (ON_AIR, None, 500, AiringState.CANCELLED, OFF, False),
    "its end has come": (ON_AIR, None, 1000, AiringState.CANCELLED, OFF, True),
    "it is over": (as_it_was(AIRED), None, 500, AIRED, None, True),
    "it was moved": (READY, 2, 500, AiringState.CANCELLED, None, False),
    "it is back since": (READY, 1, 500, AiringState.READY, None, False),
    "it was refused, and never promised": (REFUSED, 2, 500, AiringState.REFUSED, 318, False),
    "it was promised, and lost": (replace(REFUSED, lost=True), 2, 500, AiringState.REFUSED, 318, False),
}


@pytest.mark.parametrize("case", RELEASED)
def test_a_release_takes_a_class_off_and_is_reported_when_nothing_more_of_it_is_sent(case: str) -> None:
    known, placement, at_s, state, code, is_reported = RELEASED[case]
    changes, barred = StreamerChanges(SETTINGS, START + at_s), {"c-1": 1}
    after = airing.release(changes, known, Release(class_id="c-1", placement=placement), barred)
    assert (after and after.state, after and after.code) == (state, code)
    said = [(one.code, one.placement) for one in told(changes, Report)]
    assert said == [(OFF, known.placement if known else 1)] * is_reported
    assert barred["c-1"] == ((placement or ANY_PLACEMENT) if known is None else 1)
    earlier = {"c-1": 7}
    airing.release(changes, None, Release(class_id="c-1", placement=2), earlier)
    assert earlier == {"c-1": 7}


@pytest.mark.parametrize(
    ("one", "parts", "at_s", "said"),
    [
        (as_it_was(AiringState.CANCELLED), [], -1, []),
        (as_it_was(AiringState.CANCELLED), [], 0, [("ended", OFF)]),
        (as_it_was(AiringState.CANCELLED), [row(0, 5)], -1, [("ended", OFF)]),
        (REFUSED, [row(0, 5)], 9, [("prepared", 318)]),
        (replace(REFUSED, code=errors.ENDED.number), [row(0, 5)], 9, []),  # it was told so with them
        (REFUSED, [], 9, []),
        (as_it_was(AIRED, code=OFF), [], 9, []),
        (ON_AIR, [row(0, 5)], 9, []),
    ],
)
def test_what_was_sent_before_a_class_was_taken_is_told_and_ended_by_who_took_it(
    one: Airing, parts: list[dict[str, Any]], at_s: float, said: list[tuple[str, int]]
) -> None:
    changes = StreamerChanges(SETTINGS, START + at_s)
    airing.ended(changes, "c-1", one, (), {"as_run": parts, "why": airing.CANCELLED})
    assert (reports(changes), changes.moved) == (said, [])
    assert [len(its) for _, _, its in changes.sent] == [len(parts)]


def test_the_report_of_a_class_that_was_cut_all_the_time_fits_into_a_message() -> None:
    """Its receiver took a second of each five, and said why it refused the rest at length, in Chinese."""
    rows = [row(at, at + 1, session=at) for at in range(0, 1_000, 2)]
    events = tuple(
        EventView(START + at, "push refused", "c-1", "6666", "s1", "推流密钥已过期" * 60) for at in range(900)
    )
    changes, said = ended(*rows, events=events)
    assert len(said.to_json().encode()) < MAX_BODY_BYTES
    assert (len(said.as_run or ()), len(said.events or ())) == (AS_RUN_TOLD, EVENTS_TOLD)
    ((_, _, kept),) = changes.sent
    assert len(kept) == len(rows)


# What the playout says of a class, its events and its parts, is read as it writes them.


EVENTS: list[tuple[dict[str, object], tuple[str, str] | None]] = [
    ({"event": "connected", "session": 1}, ("connected", "session 1 is ready to publish")),
    ({"event": "on_air", "session": 2, "position_s": 12.34}, ("on air", "at 12.3 s, session 2")),
    ({"event": "broke_off", "was_on_air": True, "why": "reset"}, ("push broke off", "reset")),
    ({"event": "broke_off", "was_on_air": False, "why": "no such app"}, ("push refused", "no such app")),
    ({"event": "slate", "slate": "/s.flv", "why": "it is missing"}, ("slate", "it is missing")),
    ({"event": "slate", "slate": None, "why": "it is missing"}, ("nothing to send", "it is missing")),
    ({"event": "back", "why": "it is there", "position_s": 5}, ("recording again", "it is there; it goes on at 5.0 s")),
    ({"event": "behind", "behind_s": 3.0}, ("fell behind", "3.0 s late; it goes on at the clock's position")),
    ({"event": "fenced", "session": 2}, ("lease over", "session 2 was ended: this streamer may not push")),
    ({"event": "lease_over"}, None),
]


def test_an_event_of_the_playout_is_said_in_words() -> None:
    assert [(event, airing.event_text(event)) for event, _ in EVENTS] == EVENTS


def test_the_parts_of_a_class_are_read_as_the_playout_writes_them() -> None:
    written = {**row(1, 2.5, "slate", 3), "open": True}
    assert airing.as_run([written]) == [AsRun(0, 3, "slate", START + 1, START + 2.5, 1, 1.5, 1_000_000)]


CLASS: dict[str, Any] = {"state": "on_air", "position_s": 63.2, "first_byte_at": START, "pushes": [{"failures": 0}]}


def test_a_class_on_air_has_its_position_and_how_often_it_was_cut() -> None:
    found = of_playout(CLASS)
    assert (found.on_air, found.position_s, found.since, found.failures) == (True, 63.2, START, 0)
    assert of_playout({**CLASS, "sessions": 4}).cuts == 3
    assert (of_playout(CLASS).behind_s, of_playout({**CLASS, "behind_s": 2.5}).behind_s) == (0.0, 2.5)
    assert of_playout({**CLASS, "sessions": 2, "pushes": CLASS["pushes"] * 2}).cuts == 0


def test_a_class_that_is_not_on_air_has_its_reason() -> None:
    refused = {**CLASS, "state": "trying", "why": "Connection refused", "pushes": [{"failures": 17}, {"failures": 3}]}
    found = of_playout(refused)
    assert (found.on_air, found.failures, found.why) == (False, 17, "Connection refused")
    lease = of_playout({**CLASS, "state": "no_lease"})
    assert (lease.on_air, lease.why) == (False, "this streamer holds no lease, so it may not push")
    assert of_playout({**CLASS, "state": "no_lease", "why": "a cut long ago"}).why == lease.why
    assert "does not answer: no socket" in (without_playout("no socket").why or "")
    assert of_playout({**CLASS, "state": "ended", "why": "its recording is over"}).why is None
