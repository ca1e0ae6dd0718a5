"""When a class is pushed, and from which position."""

from hypothesis import given
from hypothesis import strategies as st

from lectern.decide.broadcast import FROM_THE_START_S, SPENT_S, Over, Push, how_aired, lead_time, next_push, without_run

START, END = 1_000.0, 1_600.0


def test_before_its_start_a_class_is_pushed_at_its_start_from_the_beginning() -> None:
    assert next_push(START, END, 900, now=700) == Push(at=START, position_s=0, length_s=600)


def test_after_its_start_a_class_is_pushed_at_once_from_the_clocks_position() -> None:
    assert next_push(START, END, 900, now=1_100) == Push(at=1_100, position_s=100, length_s=500)


def test_a_moment_after_its_start_a_class_still_begins_at_its_beginning() -> None:
    """A seek goes to the next key picture, which can be ten seconds away: the class would open on a black screen."""
    assert next_push(START, END, 900, now=START + 0.05) == Push(START + 0.05, 0, END - START - 0.05)


def test_a_recording_shorter_than_the_class_ends_the_push_early() -> None:
    assert next_push(START, END, 300, now=1_100) == Push(at=1_100, position_s=100, length_s=200)


def test_a_class_that_has_ended_is_not_pushed() -> None:
    assert next_push(START, END, 900, now=END) == Over("the class has ended")


def test_a_recording_that_is_over_is_not_connected_again_for_its_last_frames() -> None:
    assert next_push(START, END, 300, now=START + 300 - SPENT_S) == Over("the recording is over")


def test_a_very_short_recording_is_still_pushed_from_its_start() -> None:
    assert next_push(START, END, 0.5, now=700) == Push(START, 0, 0.5)


def test_an_empty_recording_is_over_before_it_begins() -> None:
    assert next_push(START, END, 0, now=700) == Over("the recording is over")


def test_the_run_of_a_class_begins_its_lead_before_the_start_or_now() -> None:
    assert lead_time(START, 300, now=0) == 700
    assert lead_time(START, 300, now=900) == 900


def test_a_class_whose_run_does_not_come_is_made_ready_without_one_in_the_last_moment() -> None:
    """Prefect has all the lead for it; a class that was booked late waits for its run a little."""
    assert not without_run(START, idle_since=START - 300, now=START - 2)
    assert without_run(START, idle_since=START - 300, now=START - 1)
    assert not without_run(START, idle_since=START + 20, now=START + 24)
    assert without_run(START, idle_since=START + 20, now=START + 25)


seconds = st.floats(0, 1e6)


@given(seconds, st.floats(0.1, 1e5), seconds, st.floats(0, 2e6))
def test_a_push_lies_within_the_class_and_within_the_recording(
    start: float, length: float, duration_s: float, now: float
) -> None:
    end = start + length
    match next_push(start, end, duration_s, now):
        case Push(at, position_s, length_s):
            assert at == max(start, now)
            assert position_s == (at - start if at - start >= FROM_THE_START_S else 0)
            assert length_s > 0
            assert at + length_s <= end + 1e-6
            assert position_s + length_s <= duration_s + 1e-6
        case Over(reason):
            assert now >= end or duration_s - max(0, now - start) <= SPENT_S
            assert reason


def test_what_is_said_of_a_class_is_what_was_sent() -> None:
    """Only a class of which all was sent was aired whole."""
    whole, late = Push(START, 0, 600), Push(START + 90, 90, 510)
    assert how_aired(whole, 599.0, 1) == "aired whole; 1 push"
    assert how_aired(whole, 580.4, 3) == "aired but for 20 s; 3 pushes"
    assert how_aired(late, 509.0, 1) == "aired from 90 s on; 1 push"
    assert how_aired(late, 100.0, 2) == "aired but for 410 s; 2 pushes"
