"""A service that fails again and again is left alone for a while, and then tried out by one request."""

from hypothesis import given
from hypothesis import strategies as st

from lectern.decide.breaker import FIRST_PAUSE_S, LONGEST_PAUSE_S, PROBE_S, THRESHOLD, Breaker
from tests.strategies import NOW


def after(failures: int, at: float = NOW) -> Breaker:
    breaker = Breaker()
    for _ in range(failures):
        breaker = breaker.failed(at)
    return breaker


def test_a_few_failures_change_nothing() -> None:
    assert after(THRESHOLD - 1).lets(NOW)


def test_after_so_many_in_a_row_it_is_left_alone_for_a_while() -> None:
    breaker = after(THRESHOLD)
    assert not breaker.lets(NOW + FIRST_PAUSE_S - 0.1)
    assert breaker.lets(NOW + FIRST_PAUSE_S)


def test_after_the_pause_one_request_tries_it_out_and_the_others_go_on_to_wait() -> None:
    later = NOW + FIRST_PAUSE_S
    probing = after(THRESHOLD).asked(later)
    assert not probing.lets(later)
    assert probing.lets(later + PROBE_S)


def test_after_the_clock_was_set_back_it_is_not_left_alone_until_the_clock_is_there_again() -> None:
    assert after(THRESHOLD, NOW + 3600).lets(NOW)
    assert not after(THRESHOLD, NOW + FIRST_PAUSE_S).lets(NOW), "a little earlier is as before"


def test_a_request_before_any_trouble_holds_no_other_back() -> None:
    assert after(THRESHOLD - 1).asked(NOW).lets(NOW)


@given(st.integers(THRESHOLD, 10_000))
def test_each_pause_is_twice_the_one_before_up_to_the_longest(failures: int) -> None:
    pause, following = (after(number).closed_until - NOW for number in (min(failures, 40), min(failures, 40) + 1))
    assert FIRST_PAUSE_S <= pause <= following <= LONGEST_PAUSE_S
    assert following in (2 * pause, LONGEST_PAUSE_S)
