"""What happened many times in a row is one line of the story, with its number and the last reason."""

from lectern.decide.tale import lines, story
from lectern.told import Found, Gap, Past


def event(at: float, what: str, detail: str = "", class_id: str = "c-1", host: str = "streamer1") -> Past:
    return Past(at, what, class_id, "6666", host, detail)


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
    told = [event(0, "waits"), event(1, "refused"), event(2, "waits"), event(3, "refused"), event(4, "waits")]
    assert [line.first.what for line in lines(reversed(told))] == ["waits", "refused", "waits", "refused", "waits"]


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
    found = story(Found("c-1", events=[event(1, "push refused")]), gaps)
    assert [line.first.what for line in found].count("not sent") == 10
