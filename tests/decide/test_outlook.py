"""Every state of a class has a sentence that says what comes next; its story has a line for each series of events."""

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import pytest

from lectern.decide.account import Standing, state_sentence
from lectern.decide.timeline import lines, next_of_booking, next_of_unbooked, story
from lectern.errors import CODES
from lectern.i18n import translated
from lectern.model.tables.teacher import RenditionRow
from lectern.model.views import Booked, ClassView, EventView, Gap
from lectern.states import Backend, BookingState, RenditionState, Resolution

NOW = 1_764_010_000.0
transcoding = partial(RenditionRow, record_id=6666, resolution=Resolution.P720, status=RenditionState.TRANSCODING)


def booked(state: BookingState, **fields: object) -> Booked:
    one = Booked("c-1", state, "6666_720P", NOW + 7200, NOW + 9000, None, None, "streamer1", answered=True)
    return replace(one, **fields)  # type: ignore[arg-type]


def refused(decided_at: float) -> Booked:
    """One whose answer has not left yet."""
    return booked(BookingState.REFUSED, code=208, answered=False, decided_at=decided_at)


def in_chinese(texts: Iterable[str]) -> bool:
    """Whether each of *texts* is a sentence that the catalogue has."""
    return all(re.search("[\u4e00-\u9fff]", translated(text, "zh")) for text in texts)


MAKING = transcoding(backend=Backend.OSS, attempt=1, deadline=NOW + 90)
QUEUED = transcoding(backend=Backend.ECS, attempt=2)
NEXT: dict[str, tuple[Booked, RenditionRow | None, str]] = {
    "it is made": (booked(BookingState.WAITING), MAKING, "attempt 1, by the OSS transcoder; without a result in 90 s"),
    "no host is free": (booked(BookingState.WAITING), QUEUED, "attempt 2, by an ECS host as soon as one is free."),
    "downloaded": (booked(BookingState.PLACED), None, "streamer1, which downloads 6666_720P unless it has it."),
    "ready": (booked(BookingState.READY), None, "streamer1 has 6666_720P. It is aired in 2 h."),
    "unsent": (refused(NOW - 40), None, "has not left for 40 s: see whether Redis answers"),
    "being sent": (refused(NOW - 2), None, "Its answer is being sent."),
}


def test_it_is_said_what_comes_next() -> None:
    wrong = [case for case, (one, making, said) in NEXT.items() if said not in next_of_booking(one, making, NOW)[-1]]
    assert wrong == []


@pytest.mark.parametrize(
    ("class_id", "answered", "comes"), [("c-1", False, True), ("c-1", True, False), ("c-1~backup", False, False)]
)
def test_an_answer_is_said_to_come_only_if_one_does(class_id: str, answered: bool, comes: bool) -> None:
    """A class that was answered waits for a streamer again if it was moved; a second airing gets no answer."""
    said = next_of_booking(booked(BookingState.PLACED, class_id=class_id, answered=answered), None, NOW)
    assert ["Its answer comes then" in one for one in said] == [comes]


def test_a_class_that_begins_soon_and_is_not_ready_is_in_danger_and_says_what_to_type() -> None:
    for state in (BookingState.WAITING, BookingState.PLACED):
        said = " ".join(next_of_booking(booked(state, start_time=NOW + 300), None, NOW))
        assert "begins in 5 min" in said
        assert "begins in 5 min" in state_sentence(
            ClassView("c-1", booked(state, start_time=NOW + 300)), Standing.COMING, NOW
        )
        assert "lectern cancel c-1" in said
        assert "In danger" not in " ".join(next_of_booking(booked(state), None, NOW))


@pytest.mark.parametrize("number", CODES)
def test_a_refusal_names_its_cause_its_heading_and_what_the_platform_should_do(number: int) -> None:
    said = next_of_booking(booked(BookingState.REFUSED, code=number, message="because"), None, NOW)
    assert said[0] == "Cause: because"
    assert f"RUNBOOK.md: {CODES[number].runbook}" in said
    assert said[-1].startswith("The platform should: ")
    over = next_of_booking(booked(BookingState.REFUSED, code=number, end_time=NOW - 1), None, NOW)
    assert not any("should" in one for one in over)


@pytest.mark.parametrize("state", [BookingState.PLACED, BookingState.READY])
def test_a_class_of_a_lost_streamer_is_not_said_to_be_aired(state: BookingState) -> None:
    said = next_of_booking(booked(state, lost_since=NOW - 70), None, NOW)
    assert said[:2] == [
        ("streamer1 is lost, as its teacher noted 70 s ago. Its classes are moved to other streamers if possible."),
        "RUNBOOK.md: 322: a streamer is lost",
    ]
    over = next_of_booking(booked(BookingState.AIRED, lost_since=NOW - 70), None, NOW)
    assert over == next_of_booking(booked(BookingState.AIRED), None, NOW)


WAITS, MALFORMED = "messages wait in the inbox", "400: malformed booking"


@pytest.mark.parametrize(
    ("since_s", "malformed", "said", "heading"),
    [
        (20, False, "for 20 s: it is handled within a minute if its servers answer.", WAITS),
        (None, True, f"It is not booked: RUNBOOK.md: {MALFORMED}", MALFORMED),
    ],
    ids=["a moment", "malformed"],
)
def test_a_class_that_is_only_in_the_inbox_is_known(
    since_s: float | None, malformed: bool, said: str, heading: str
) -> None:
    """Prefect may be away for hours; who asks is not told that his class_id is wrong."""
    known = next_of_unbooked(since_s and NOW - since_s, malformed=malformed, now=NOW)
    assert (said in known[0], known[-1].endswith(f"RUNBOOK.md: {heading}")) == (True, True)
    assert in_chinese(known[:1])
    assert not next_of_unbooked(None, malformed=False, now=NOW)


def event(at: float, what: str, detail: str = "", class_id: str = "c-1", host: str = "streamer1") -> EventView:
    return EventView(at, what, class_id, "6666", host, detail)


def test_a_series_is_one_line_with_its_number_and_its_last_reason() -> None:
    told = [event(0, "placed"), *(event(n, "push refused", f"reason {n}") for n in range(1, 27)), event(30, "broken")]
    _, series, _ = lines(told)
    assert series.text().startswith("c-1: push refused, 26 times until ")
    assert series.text().endswith("; the last: reason 26")


TOLD = {
    "two of a kind": ([event(0, "waits"), event(1, "waits")], [1, 1]),
    "three of a kind": ([event(0, "waits"), event(1, "waits"), event(2, "waits")], [3]),
    "by turns": ([event(n, "on air" if n % 2 else "push broke off") for n in range(2000)], [1000, 1000]),
    "whatever comes between": ([event(n, what) for n, what in enumerate(("waits", "refused", "waits") * 2)], [1] * 6),
    "of other classes": ([event(n, "push refused", class_id=f"c-{n}") for n in range(5)], [1] * 5),
}


@pytest.mark.parametrize("case", TOLD)
def test_each_event_that_is_of_no_series_has_its_line_in_its_order(case: str) -> None:
    told, numbers = TOLD[case]
    found = lines(reversed(told))
    assert [line.number for line in found] == numbers
    assert [line.first for line in found] == told[: len(found)]


def test_a_detail_that_goes_on_with_the_sentence_stands_in_it_and_any_other_behind_a_colon() -> None:
    told = [event(0, "placed", "on s1"), event(1, "push refused", "no such stream"), event(2, "waits")]
    said = ["c-1: placed on s1", "c-1: push refused: no such stream", "c-1: waits"]
    assert [line.text() for line in lines(told)] == said


def test_gaps_are_a_line_each_however_many_there_are() -> None:
    gaps = [Gap(at, at + 5, 5, "the push was refused") for at in range(0, 100, 10)]
    found = story(ClassView("c-1", events=[event(1, "push refused")]), gaps)
    assert [line.first.what for line in found].count("not sent") == 10
