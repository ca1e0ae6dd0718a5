"""A token bucket lets a burst through, then so many a second, whatever the order of arrivals."""

from hypothesis import given
from hypothesis import strategies as st

from lectern.effects.rate import Rate


def test_a_burst_goes_through_and_the_next_one_is_told_how_long_to_wait() -> None:
    rate = Rate(10, 3)
    assert [rate.take(100.0) for _ in range(3)] == [0, 0, 0]
    wait_s = rate.take(100.0)
    assert 0 < wait_s <= 0.1
    assert rate.take(100.0 + wait_s + 1e-6) == 0


@given(st.lists(st.floats(0, 0.5), max_size=200), st.integers(1, 20), st.integers(1, 10))
def test_no_more_than_the_burst_and_the_rate_go_through(gaps: list[float], a_second: int, burst: int) -> None:
    rate, now, through = Rate(a_second, burst), 0.0, 0
    for gap in gaps:
        now += gap
        through += rate.take(now) == 0
    assert through <= burst + a_second * now + 1e-6
