"""Times, lengths and amounts are written as people say them."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

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


SAID: dict[Callable[[Any], str], list[tuple[float, str]]] = {
    formatting.span: [
        *((-3, "0 s"), (45.9, "45 s"), (720, "12 min"), (11_100, "3 h 5 min"), (86_400, "24 h")),
        *((187_200, "2 d 4 h"), (259_200, "3 d")),
    ],
    formatting.length: [
        *((0, "0 s"), (1.13, "1.1 s"), (9.96, "10 s"), (45, "45 s"), (180, "3 min"), (1000, "16 min 40 s")),
        (3605, "1 h 5 s"),
    ],
    formatting.size: [
        *((12, "12 bytes"), (419_481, "0.4 MB"), (865_404, "0.9 MB"), (1_073_741_824_000, "1,074 GB")),
        (5e7, "50.0 MB"),
    ],
    formatting.position: [(243.4, "4:03"), (3843, "1:04:03")],
    partial(formatting.counted, thing="class", things="classes"): [(1, "1 class"), (12_000, "12,000 classes")],
    partial(formatting.when, now=1_764_010_800): [(1_764_013_500, "03:45:00"), (1_764_097_200, "2025-11-26 03:00:00")],
}


@pytest.mark.parametrize(("write", "number", "said"), [(one, *row) for one, rows in SAID.items() for row in rows])
def test_a_number_is_written_in_its_unit(write: Callable[[Any], str], number: float, said: str) -> None:
    """A length of time, what is missing of a class, an amount, a place in a recording, a count, a time of a day."""
    assert write(number) == said


def test_a_class_is_told_in_local_time_with_its_date_and_zone() -> None:
    assert period(1_764_010_800, 1_764_013_500) == "2025-11-25 03:00:00 to 03:45:00 CST (45 min)"
    assert "2025-11-26" in period(1_764_010_800, 1_764_010_800 + 86_400)


def test_a_time_that_no_clock_shows_is_told_all_the_same() -> None:
    assert "no time" in formatting.moment(1e30)
