"""A token bucket lets a burst through, then so many a second; a throttle lets one through in so many seconds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.engine.url import make_url

from lectern.db.engine import bind_list, in_list
from lectern.model.tables.teacher import journal
from lectern.timing import NAMES, Rate, Throttle


class Clock:
    """A clock that stands still unless it is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_goes_through_and_the_next_one_is_told_how_long_to_wait() -> None:
    clock = Clock()
    rate = Rate(3, 10, clock)
    assert [rate.take() for _ in range(3)] == [0, 0, 0]
    wait_s = rate.take()
    assert 0 < wait_s <= 0.1
    assert rate.wait_s() == wait_s
    assert rate.take("somebody else") == 0
    clock.now += wait_s + 1e-6
    assert rate.take() == 0


@given(st.lists(st.floats(0, 0.5), max_size=200), st.integers(1, 20), st.integers(1, 10))
def test_no_more_than_the_burst_and_the_rate_go_through(gaps: list[float], a_second: int, burst: int) -> None:
    clock = Clock()
    rate, through = Rate(burst, a_second, clock), 0
    for gap in gaps:
        clock.now += gap
        through += rate.take() == 0
    assert through <= burst + a_second * (clock.now - 100) + 1e-6


def test_a_throttle_lets_each_name_through_once_in_its_time() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    assert [throttle.take(one, 10) for one in ("a", "a", "b")] == [True, False, True]
    clock.now += 10
    assert throttle.due("a", 10)
    assert [throttle.take("a", 10), throttle.take("a", 10)] == [True, False]
    throttle.forget("a")
    assert throttle.take("a", 10)


def test_names_that_never_come_again_are_forgotten() -> None:
    """An address that tries tokens can have any number of names."""
    clock = Clock()
    rate, throttle = Rate(1, 1, clock), Throttle(clock)
    for number in range(NAMES + 1):
        assert rate.take(str(number)) == 0
        assert throttle.take(str(number), 10)
    assert rate.take("0") == 0
    assert rate.take(str(NAMES)) > 0
    assert throttle.take("0", 10)


INBOX = journal.inbox


@pytest.mark.parametrize(
    ("url", "number", "text"),
    [
        ("postgresql+psycopg://", "CAST(value AS BIGINT) FROM json_array", "CAST(value AS TEXT) FROM json_array"),
        ("sqlite://", "value FROM json_each", "value FROM json_each"),
    ],
    ids=["postgresql", "sqlite"],
)
def test_numbers_are_compared_as_numbers_and_texts_as_texts(url: str, number: str, text: str) -> None:
    """PostgreSQL compares no number with a text; the ids of rows are numbers of a type of our own."""
    dialect = make_url(url).get_dialect()()
    wanted = select(INBOX.c.id).where
    assert number in str(wanted(in_list(INBOX.c.id)).compile(dialect=dialect))
    assert text in str(wanted(in_list(INBOX.c.command)).compile(dialect=dialect))


def test_a_list_of_any_length_is_one_parameter() -> None:
    assert bind_list(range(3)) == {"among": "[0, 1, 2]"}
    assert bind_list(['a"b'], "names") == {"names": '["a\\"b"]'}
