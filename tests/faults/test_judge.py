"""The judge of a day with faults: what it counts of a class."""

import pytest

from tests.faults.judge import taken_s_of
from town.recordings import Publish

START = 1000.0


@pytest.mark.parametrize(
    ("pushes", "taken_s"),
    [
        ([(0, 10, 0)], 10),
        ([(-3, 10, 0)], 10),
        ([(-8, -7, 0), (0, 4, 0), (5, 15, 0)], 14),  # it was moved later, and began anew
        ([(0, 10, 900), (11, 20, 3000)], 10 + 9 - 3),
        ([(None, None, 0), (0, 10, 0)], 10),
    ],
    ids=["whole", "begins before", "ends before", "falls behind", "brings nothing"],
)
def test_what_is_sent_of_a_class_counts_from_its_start_on(
    pushes: list[tuple[float | None, float | None, int]], taken_s: float
) -> None:
    """What came before it is not of the class, and no more than that is taken off."""
    found = [publish(number, *one) for number, one in enumerate(pushes, 1)]
    assert taken_s_of(found, START) == pytest.approx(taken_s)


def publish(number: int, first_s: float | None, last_s: float | None, step_ms: int) -> Publish:
    """A push that brought media from *first_s* to *last_s* of the class."""
    push = Publish("c", number, "live", f"c.{number}.flv", START, concurrent=False, largest_step_ms=step_ms)
    if first_s is not None and last_s is not None:
        push.first_media_at, push.last_media_at = START + first_s, START + last_s
        push.first_timestamp_ms, push.last_timestamp_ms = 0, round((last_s - first_s) * 1000)
    return push
