"""What is pinned goes down as classes end; the story of a class has a line for each series of events."""

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
    found = [line.text() for line in lines(told)]
    assert len(found) == 3
    assert found[1].startswith("c-1: push refused, 26 times until ")
    assert found[1].endswith("; the last: reason 26")


def test_two_of_a_kind_stay_two_lines() -> None:
    assert len(lines([event(0, "waits"), event(1, "waits")])) == 2


def test_what_comes_by_turns_is_a_line_each() -> None:
    told = [event(n, "on air" if n % 2 else "push broke off") for n in range(2000)]
    assert [line.number for line in lines(told)] == [1000, 1000]


def test_a_story_is_told_in_its_order_whatever_comes_between() -> None:
    told = [event(at, what) for at, what in enumerate(("waits", "refused", "waits", "waits", "refused"))]
    assert [line.first.what for line in lines(reversed(told))] == [one.what for one in told]


def test_events_of_other_classes_and_hosts_are_no_series() -> None:
    told = [event(n, "push refused", class_id=f"c-{n}") for n in range(5)]
    assert len(lines(told)) == 5


def test_a_detail_that_goes_on_with_the_sentence_stands_in_it_and_any_other_behind_a_colon() -> None:
    (line,) = lines([event(0, "placed", "on streamer1")])
    assert line.text() == "c-1: placed on streamer1"
    (line,) = lines([event(0, "push refused", "no such stream")])
    assert line.text() == "c-1: push refused: no such stream"
    (line,) = lines([event(0, "waits")])
    assert line.text() == "c-1: waits"


def test_gaps_are_a_line_each_however_many_there_are() -> None:
    gaps = [Gap(at, at + 5, 5, "the push was refused") for at in range(0, 100, 10)]
    found = story(ClassView("c-1", events=[event(1, "push refused")]), gaps)
    assert [line.first.what for line in found].count("not sent") == 10
