"""What is checked before a class begins, and what is faulty in a recording."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern.decide.readiness import (
    CHECKS_S,
    Seen,
    check_due,
    dead_air_faults,
    dead_air_warning,
    lost_file,
    reds,
    sentence,
)
from lectern.formatting import minutes
from lectern.model.facts import Samples

GOOD = Seen(
    state_ready=True,
    num_cite=1,
    wanted_bytes=100,
    found_bytes=100,
    unreadable=None,
    damaged=None,
    unreachable=None,
    skew_s=0.01,
    lease=True,
)


@pytest.mark.parametrize(
    ("left", "done", "due"),
    [
        (7200, None, None),
        (3600, None, 3600),
        (1000, None, 3600),
        (1000, 3600, None),
        (900, 3600, 900),
        (299, 900, 300),
        (299, None, 300),
        (299, 300, None),
        (-1, None, None),
    ],
)
def test_a_check_is_due_once(left: float, done: float | None, due: float | None) -> None:
    assert check_due(10_000, 10_000 - left, done) == due


@given(st.lists(st.floats(0, 7200), min_size=1, max_size=50))
def test_however_often_one_looks_no_check_is_made_twice_and_none_goes_backwards(times: list[float]) -> None:
    done: float | None = None
    made: list[float] = []
    for left in sorted(times, reverse=True):
        due = check_due(10_000, 10_000 - left, done)
        if due is not None:
            done = due
            made.append(due)
    assert made == sorted(set(made), reverse=True)
    assert set(made) <= set(CHECKS_S)


def test_a_class_that_is_ready_has_no_reds_and_any_other_all_at_once() -> None:
    assert reds(GOOD) == []
    assert reds(replace(GOOD, skew_s=None)) == []
    assert len(reds(Seen(False, 0, 100, None, None, None, "refused", 9.0, lease=False))) == 5
    assert sentence("c-1", "6666", 300, ["a", "b"]) == "c-1 begins in 5 min and is not ready with 6666: a; b"
    assert minutes(40) == "40 s"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"state_ready": False}, "its rendition is not there yet"),
        ({"found_bytes": None}, "its file is gone"),
        ({"found_bytes": 99}, "its file has 99 bytes, not 100"),
        ({"unreadable": "Input/output error"}, "cannot be read: Input/output error"),
        ({"num_cite": 0}, "nothing pins its rendition"),
        ({"unreachable": "live:1935: refused"}, "its push URL cannot be reached: live:1935: refused"),
        ({"skew_s": -3.0}, "clock is off by -3.0 s"),
        ({"lease": False}, "holds no lease"),
    ],
)
def test_each_fault_is_one_reason(change: dict[str, object], said: str) -> None:
    (found,) = reds(replace(GOOD, **change))  # type: ignore[arg-type]
    assert said in found


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"found_bytes": None}, "it is not on the disk"),
        ({"found_bytes": 99}, "it has 99 bytes, not 100"),
        ({"damaged": "it ends after 5 s, not 9 s"}, "it ends after 5 s, not 9 s"),
        ({"unreadable": "Input/output error"}, None),
        ({"state_ready": False, "found_bytes": None}, None),
    ],
)
def test_a_file_that_is_lost_or_damaged_is_to_be_downloaded_again(change: dict[str, object], why: str | None) -> None:
    assert lost_file(replace(GOOD, **change)) == why  # type: ignore[arg-type]


LESSON_S = 300


def lesson(
    black: tuple[int, int] = (0, 0),
    still: tuple[int, int] = (0, 0),
    silent: tuple[int, int] = (0, 0),
    loudness: float = -20.0,
    key_s: int = 2,
) -> Samples:
    """A lesson of five minutes, with what is wrong in it from one second to another."""
    times = range(0, LESSON_S, key_s)

    def same(at: int) -> bool:
        return any(begin < at < end and at - key_s >= begin for begin, end in (black, still))

    pictures = tuple((float(at), 16 if black[0] <= at < black[1] else 200, same(at)) for at in times)
    sounds = tuple((float(at), -110.0 if silent[0] <= at < silent[1] else -22.0) for at in range(LESSON_S))
    return Samples(float(LESSON_S), pictures, sounds, loudness)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (lesson(), ""),
        (lesson(black=(100, 106)), ""),
        (lesson(black=(100, 120)), "black from 1:38 to 2:00"),
        (lesson(still=(60, 160)), ""),  # somebody speaks to a slide
        (lesson(silent=(60, 110)), ""),  # somebody writes on the board
        (lesson(silent=(60, 130)), "silent from 1:00 to 2:10"),
        (lesson(still=(60, 100), silent=(60, 100)), "frozen and silent from 1:00 to 1:40"),
        (lesson(still=(60, 80), silent=(60, 80)), ""),
        (lesson(black=(60, 100), silent=(60, 100)), "black from 0:58 to 1:40"),
        (replace(lesson(), holes=((3.0, 3603.0),)), "nothing recorded from 0:03 to 1:00:03"),
        (lesson(loudness=-45.0), "very quiet (-45 LUFS)"),
        (lesson(loudness=-2.0), "very loud (-2 LUFS)"),
    ],
)
def test_what_is_told_of_a_lesson(one: Samples, said: str) -> None:
    assert dead_air_warning(one) == said


def test_what_is_silent_or_dark_is_measured_from_end_to_end() -> None:
    """A lesson that ends black is told, though no picture follows."""
    found = Samples(90.0, tuple((float(at), 200, False) for at in range(0, 90, 2)), (), None)
    assert [one.text() for one in dead_air_faults(found)] == ["silent from 0:00 to 1:30"]
    assert dead_air_warning(lesson(black=(290, 300))) == "black from 4:48 to 5:00"
    assert dead_air_warning(lesson(black=(100, 101), key_s=10)) == ""


def test_of_many_places_five_are_named() -> None:
    pictures = tuple((float(at), 16 if at // 20 % 2 else 200, False) for at in range(0, 300, 2))
    said = dead_air_warning(Samples(300.0, pictures, tuple((float(at), -20.0) for at in range(300)), -20.0))
    assert said.count("black from") == 5
    assert said.endswith("; 2 more places")
