"""A class is looked at an hour, a quarter and five minutes before its start, each time once."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern.decide.readiness import CHECKS_S, Seen, check_due, in_minutes, lost_file, reds, sentence

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


def test_a_class_that_is_ready_has_no_reds() -> None:
    assert reds(GOOD) == []
    assert reds(replace(GOOD, skew_s=None)) == []


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


def test_all_reasons_are_told_at_once() -> None:
    assert len(reds(Seen(False, 0, 100, None, None, None, "refused", 9.0, lease=False))) == 5
    assert sentence("c-1", "6666", 300, ["a", "b"]) == "c-1 begins in 5 min and is not ready with 6666: a; b"
    assert in_minutes(40) == "40 s"


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
