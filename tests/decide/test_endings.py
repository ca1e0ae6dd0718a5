"""How a class ends on its streamer: the state, the code and the message of its row and of its report are one truth."""

from dataclasses import replace
from typing import Any

import pytest

from lectern.decide import airing
from lectern.model.facts import Airing
from lectern.model.streamer_plan import AS_RUN_TOLD, EVENTS_TOLD, StreamerChanges
from lectern.model.views import EventView
from lectern.settings import StreamerSettings
from lectern.states import AiringState
from lectern.wire.messages import Report
from lectern.wire.parser import MAX_BODY_BYTES

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
    changes = StreamerChanges(SETTINGS, END + 1)
    airing.ended(changes, "c-1", one, events, {"as_run": rows, "why": why, "last": "no such stream"})
    (said,) = (one.message for one in changes.sends)
    assert isinstance(said, Report)
    return changes, said


@pytest.mark.parametrize(
    ("rows", "why", "state", "code", "message"),
    [
        ([row(0, 1_000)], OVER, AiringState.AIRED, 0, "aired whole; 1 session; its end has come"),
        ([row(0, 1_000)], airing.CANCELLED, AiringState.AIRED, 0, "aired whole; 1 session; its end has come"),
        ([row(0, 500), row(505, 1_000)], OVER, AiringState.AIRED, 0, "aired whole; 1 session"),
        ([row(0, 500), row(505.1, 1_000)], OVER, AiringState.AIRED_WITH_GAPS, 329, "5.1 s of 16 min 40 s were not"),
        ([row(13, 1_000)], OVER, AiringState.AIRED_WITH_GAPS, 329, "13 s of 16 min 40 s were not sent"),
        ([row(0, 980)], SHORT, AiringState.AIRED_WITH_GAPS, 329, "20 s of 16 min 40 s were not sent"),
        ([row(0, 600), row(600, 1_000, "slate")], OVER, AiringState.AIRED_WITH_GAPS, 329, "6 min 40 s of 16 min 40 s"),
        ([row(0, 1_000, "slate")], OVER, AiringState.BROKEN, 321, "not aired; the slate was sent for 1000 s: no such"),
        ([], OVER, AiringState.BROKEN, 321, "not aired: no such stream"),
    ],
    ids=[
        "whole",
        "its playout stood still at its end",
        "5 s",
        "5.1 s",
        "late",
        "short recording",
        "slate",
        "only slate",
        "nothing",
    ],
)
def test_a_class_ends_as_what_was_sent_of_it(
    rows: list[dict[str, Any]], why: str, state: AiringState, code: int, message: str
) -> None:
    changes, said = ended(*rows, why=why)
    after = changes.moved[-1]
    assert (after.state, after.message) == (state, said.message)
    assert said.message.startswith(message)
    assert (said.result, said.code) == ("fail" if code == 321 else "success", code)
    assert changes.missing_s == ([] if state is AiringState.BROKEN else pytest.approx([1_000 - sum(_sent(rows))]))


def test_a_class_whose_recording_never_came_is_refused_with_the_slate_that_was_sent() -> None:
    """It was moved on air, or answered because its slate comes first: its teacher counts what its viewers saw."""
    waiting = replace(ON_AIR, state=AiringState.WAITING, placement=2)
    changes, said = ended(row(993, 1_000, "slate"), one=waiting)
    assert changes.moved[-1].state is AiringState.REFUSED
    assert (said.cmd, said.result, said.code, said.placement) == ("prepared", "fail", 410, 2)
    assert [(part["source"], part["sent_s"]) for part in said.as_run or ()] == [("slate", 7)]


def test_a_class_that_was_taken_off_the_air_before_its_end_is_ended_by_who_took_it_off() -> None:
    changes = StreamerChanges(SETTINGS, END - 1)
    airing.ended(changes, "c-1", ON_AIR, (), {"as_run": [row(0, 500)], "why": airing.CANCELLED})
    assert (changes.moved, changes.sends) == ([], [])
    assert [len(parts) for _, parts in changes.sent] == [1]


def _sent(rows: list[dict[str, Any]]) -> list[float]:
    return [one["sent_s"] for one in rows if one["source"] == "recording"]


LOST = replace(ON_AIR, state=AiringState.WAITING, lost=True)
"""It was ready, and its file is being downloaded again: the playout airs what there is."""


def test_a_class_that_lost_its_file_ends_as_what_was_sent_of_it() -> None:
    """It was promised: nobody may say that its rendition never came."""
    changes, said = ended(row(0, 900, "slate"), row(900, 1_000), one=LOST)
    after = changes.moved[-1]
    assert (after.state, said.result, said.code) == (AiringState.AIRED_WITH_GAPS, "success", 329)
    assert len(said.as_run or ()) == 2


@pytest.mark.parametrize(
    ("one", "command", "code", "state"),
    [(replace(LOST, lost=False), "prepared", 410, AiringState.REFUSED), (LOST, "ended", 321, AiringState.BROKEN)],
    ids=["never ready", "promised"],
)
def test_a_class_without_its_file_is_closed_late_by_what_was_promised(
    one: Airing, command: str, code: int, state: AiringState
) -> None:
    changes = StreamerChanges(SETTINGS, END + 60)
    airing.close_late(changes, one, is_known=True)
    (said,) = (sent.message for sent in changes.sends)
    assert isinstance(said, Report)
    assert (said.cmd, said.code, changes.moved[-1].state) == (command, code, state)


def test_the_report_of_a_class_that_was_cut_all_the_time_fits_into_a_message() -> None:
    """Its receiver took a second of each five, and said why it refused the rest at length, in Chinese."""
    rows = [row(at, at + 1, session=at) for at in range(0, 1_000, 2)]
    events = tuple(
        EventView(START + at, "push refused", "c-1", "6666", "s1", "推流密钥已过期" * 60) for at in range(900)
    )
    changes, said = ended(*rows, events=events)
    assert len(said.to_json().encode()) < MAX_BODY_BYTES
    assert (len(said.as_run or ()), len(said.events or ())) == (AS_RUN_TOLD, EVENTS_TOLD)
    ((_, kept),) = changes.sent
    assert len(kept) == len(rows)
