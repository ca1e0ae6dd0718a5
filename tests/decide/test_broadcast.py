"""How it is said what was aired of a class, and what happens to one that is on air."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern.decide.broadcast import MISSING_S, Sums, as_run, how_aired, lead_time, not_aired, said
from lectern.facts import AsRun

START = 1_000.0


def part(begins: float, ends: float, source: str = "recording", session: int = 1) -> AsRun:
    return AsRun(0, session, source, begins, ends, begins - START, ends - begins)


def test_the_run_of_a_class_begins_its_lead_before_the_start_or_now() -> None:
    assert lead_time(START, 300, now=0) == 700
    assert lead_time(START, 300, now=900) == 900


def test_a_class_that_was_sent_from_its_second_to_its_end_was_aired_whole() -> None:
    assert how_aired([part(1_000.1, 1_600)], Sums(599.9, 0, 0.1, 1), START, 600) == "aired whole; 1 session"


def test_a_class_that_was_booked_late_was_aired_from_there_on() -> None:
    assert how_aired([part(1_090, 1_600)], Sums(510, 0, 90, 1), START, 600) == "aired from 90 s on; 1 session"


def test_what_was_not_sent_of_a_class_is_said_and_how_much_of_it_was_the_slate() -> None:
    parts = [part(1_000, 1_300), part(1_300, 1_340, "slate"), part(1_360, 1_600, session=2)]
    said = how_aired(parts, Sums(540, 40, 20, 2), START, 600)
    assert said == "aired but for 60 s (40 s of them the slate); 2 sessions"


def test_a_class_of_which_nothing_was_sent_was_not_aired_although_its_slate_was() -> None:
    total = Sums(0, 600, 0, 1)
    assert how_aired([part(1_000, 1_600, "slate")], total, START, 600) is None
    assert not_aired(total, "the recording is missing") == (
        "not aired; the slate was sent for 600 s: the recording is missing"
    )
    assert not_aired(Sums(0, 0, 600, 0), None) == "not aired"


@given(st.floats(0, 600), st.floats(0, 600))
def test_aired_whole_is_said_of_nothing_that_lacks_more_than_a_moment(sent_s: float, late_s: float) -> None:
    words = how_aired([part(START + late_s, 1_600)], Sums(sent_s, 0, 0, 1), START, 600)
    if words is not None and words.startswith("aired whole"):
        assert sent_s > 600 - late_s - MISSING_S
        assert late_s < MISSING_S


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"event": "connected", "session": 1}, ("connected", "session 1 is ready to publish")),
        ({"event": "on_air", "session": 2, "position_s": 12.34}, ("on air", "at 12.3 s, session 2")),
        ({"event": "broke_off", "was_on_air": True, "why": "reset"}, ("push broke off", "reset")),
        ({"event": "broke_off", "was_on_air": False, "why": "no such app"}, ("push refused", "no such app")),
        ({"event": "slate", "slate": "/s.flv", "why": "it is missing"}, ("slate", "it is missing")),
        ({"event": "slate", "slate": None, "why": "it is missing"}, ("nothing to send", "it is missing")),
        (
            {"event": "back", "why": "it is there", "position_s": 5},
            ("recording again", "it is there; it goes on at 5.0 s"),
        ),
        ({"event": "behind", "behind_s": 3.0}, ("fell behind", "3.0 s late; it goes on at the clock's position")),
        ({"event": "lease_over"}, None),
    ],
)
def test_an_event_of_the_playout_is_said_in_words(event: dict[str, object], words: tuple[str, str] | None) -> None:
    assert said(event) == words


def test_the_parts_of_a_class_are_read_as_the_playout_writes_them() -> None:
    row = {
        "url": 0,
        "session": 3,
        "source": "slate",
        "from": 1.0,
        "to": 2.5,
        "position_s": 7.0,
        "sent_s": 1.5,
        "open": True,
    }
    assert as_run([row]) == [AsRun(0, 3, "slate", 1.0, 2.5, 7.0, 1.5)]
