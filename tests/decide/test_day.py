"""What is pinned goes down as classes end; the story of a class has a line for each series of events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern.decide.account import HOURS, cache_ahead
from lectern.decide.timeline import lines, story
from lectern.model.facts import Needed
from lectern.model.views import ClassView, EventView, Gap

NOW = 1_764_010_800.0


def test_a_rendition_is_pinned_until_the_last_class_that_needs_it_has_ended() -> None:
    several = [Needed("1", 10, NOW + 3 * 3600), Needed("1", 10, NOW + 60), Needed("2", 5, NOW + 60)]
    assert cache_ahead(several, NOW)[:4] == [15, 10, 10, 0]


@given(st.lists(st.builds(Needed, st.sampled_from("abc"), st.just(7), st.floats(NOW - 9e4, NOW + 9e4))))
def test_what_classes_need_never_grows_by_itself(needed: list[Needed]) -> None:
    """And is never more than each rendition once."""
    found = cache_ahead(needed, NOW)
    assert found == sorted(found, reverse=True)
    assert found[0] <= 7 * len({one.stem for one in needed})
    assert len(found) == HOURS


def event(at: float, what: str, detail: str = "", class_id: str = "c-1", host: str = "streamer1") -> EventView:
    return EventView(at, what, class_id, "6666", host, detail)


def test_a_series_is_one_line_with_its_number_and_its_last_reason() -> None:
    told = [event(0, "placed"), *(event(n, "push refused", f"reason {n}") for n in range(1, 27)), event(30, "broken")]
    _, series, _ = lines(told)
    assert series.text().startswith("c-1: push refused, 26 times until ")
    assert series.text().endswith("; the last: reason 26")


TOLD = {
    "two of a kind": ([event(0, "waits"), event(1, "waits")], [1, 1]),
    "by turns": ([event(n, "on air" if n % 2 else "push broke off") for n in range(2000)], [1000, 1000]),
    "whatever comes between": ([event(n, what) for n, what in enumerate(("waits", "refused", "waits") * 2)], [1] * 6),
    "of other classes": ([event(n, "push refused", class_id=f"c-{n}") for n in range(5)], [1] * 5),
}


@pytest.mark.parametrize("case", TOLD)
def test_each_event_that_is_of_no_series_has_its_line_in_its_order(case: str) -> None:
    told, numbers = TOLD[case]
    found = lines(reversed(told))
    assert [line.number for line in found] == numbers
    assert [line.first for line in found] == told[: len(found)]


def test_a_detail_that_goes_on_with_the_sentence_stands_in_it_and_any_other_behind_a_colon() -> None:
    told = [event(0, "placed", "on s1"), event(1, "push refused", "no such stream"), event(2, "waits")]
    said = ["c-1: placed on s1", "c-1: push refused: no such stream", "c-1: waits"]
    assert [line.text() for line in lines(told)] == said


def test_gaps_are_a_line_each_however_many_there_are() -> None:
    gaps = [Gap(at, at + 5, 5, "the push was refused") for at in range(0, 100, 10)]
    found = story(ClassView("c-1", events=[event(1, "push refused")]), gaps)
    assert [line.first.what for line in found].count("not sent") == 10
