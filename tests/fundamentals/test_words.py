"""Times, lengths and amounts are written as people say them."""

import time
from collections.abc import Iterator

import pytest

from lectern import formatting
from lectern.decide.account import period


@pytest.fixture(autouse=True)
def _zone() -> Iterator[None]:
    """Shanghai for a test; what comes after it in this process has the machine's zone again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Shanghai")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "0 s"),
        (45.9, "45 s"),
        (720, "12 min"),
        (11_100, "3 h 5 min"),
        (86_400, "24 h"),
        (187_200, "2 d 4 h"),
        (259_200, "3 d"),
    ],
)
def test_a_length_of_time_is_said_in_its_unit(seconds: float, said: str) -> None:
    assert formatting.span(seconds) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [(12, "12 bytes"), (419_481, "0.4 MB"), (865_404, "0.9 MB"), (1_073_741_824_000, "1,074 GB"), (5e7, "50.0 MB")],
)
def test_an_amount_is_said_in_its_unit(number: float, said: str) -> None:
    assert formatting.size(number) == said


def test_a_number_has_its_singular_and_its_thousands() -> None:
    assert formatting.counted(1, "class", "classes") == "1 class"
    assert formatting.counted(12_000, "class", "classes") == "12,000 classes"


def test_a_class_is_told_in_local_time_with_its_date_and_zone() -> None:
    assert period(1_764_010_800, 1_764_013_500) == "2025-11-25 03:00:00 to 03:45:00 CST (45 min)"
    assert "2025-11-26" in period(1_764_010_800, 1_764_010_800 + 86_400)


def test_a_time_of_the_same_day_is_told_without_its_date() -> None:
    assert formatting.when(1_764_013_500, 1_764_010_800) == "03:45:00"
    assert formatting.when(1_764_010_800 + 86_400, 1_764_010_800) == "2025-11-26 03:00:00"


def test_a_place_in_a_recording_is_told_as_players_do() -> None:
    assert [formatting.position(243.4), formatting.position(3843)] == ["4:03", "1:04:03"]


def test_a_time_that_no_clock_shows_is_told_all_the_same() -> None:
    assert "no time" in formatting.moment(1e30)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (1.13, "1.1 s"),
        (9.96, "10 s"),
        (45, "45 s"),
        (180, "3 min"),
        (1000, "16 min 40 s"),
        (3605, "1 h 5 s"),
    ],
)
def test_what_is_missing_of_a_class_is_said_to_the_second(seconds: float, said: str) -> None:
    assert formatting.length(seconds) == said
