"""What a streamer's bounded cache does with a batch of classes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern import formatting
from lectern.decide.cache import (
    Admission,
    Admit,
    Bound,
    WantedRendition,
    admit,
    evictions,
    next_place,
    no_room,
    told_when,
)
from lectern.model.facts import Idle, Needed, Usage
from lectern.states import FileState
from tests import strategies

NOW = 1_764_010_800.0
ROOMY = Bound(max_bytes=1_000, max_num=10)
Cache = tuple[list[WantedRendition], dict[str, FileState], Usage, Bound, list[Idle], dict[str, int]]


def decided(
    *wanted: WantedRendition, bound: Bound = ROOMY, idle: list[Idle] | None = None, **cached: FileState
) -> list[Admission]:
    held = idle or []
    return admit(wanted, cached, Usage(sum(one.size_bytes for one in held), len(held)), bound, held)


def test_a_cached_rendition_is_only_cited_one_under_download_joined_and_any_other_downloaded() -> None:
    said = {state: decided(WantedRendition("c-1", "a", 5), a=state)[0].admit for state in FileState}
    again = dict.fromkeys((FileState.BAD, FileState.EVICTING), Admit.RESERVE)
    assert said == {FileState.READY: Admit.READY, FileState.DOWNLOADING: Admit.JOIN, **again}


TEN = Bound(10, 10)
OLD_ONES = [Idle("oldest", 3), Idle("older", 3), Idle("old", 3)]
NEW, NEEDED = WantedRendition("c-1", "new", 5), WantedRendition("c-2", "old")
ADMITTED: dict[str, tuple[list[WantedRendition], Bound, list[Idle], list[Admit], list[str]]] = {
    "two of one rendition": ([NEW, replace(NEW, class_id="c-2")], ROOMY, [], [Admit.RESERVE, Admit.JOIN], []),
    "exactly full": ([replace(NEW, size_bytes=10)], TEN, [], [Admit.RESERVE], []),
    "one byte more is 316": ([replace(NEW, size_bytes=11)], TEN, [], [Admit.FULL], []),
    "their number is bounded, too": ([NEW], Bound(1_000, 1), [Idle("old", 1)], [Admit.RESERVE], ["old"]),
    "what cannot fit evicts nothing": ([replace(NEW, size_bytes=11)], TEN, [Idle("old", 5)], [Admit.FULL], []),
    "the least recently used, no more than needed": ([NEW], TEN, OLD_ONES, [Admit.RESERVE], ["oldest", "older"]),
    "not what another needs": ([NEW, NEEDED], TEN, [Idle("old", 6), Idle("x", 4)], [Admit.FULL, Admit.READY], []),
    "whichever is first": ([NEEDED, NEW], TEN, [Idle("old", 6), Idle("x", 4)], [Admit.READY, Admit.FULL], []),
}


@pytest.mark.parametrize("case", ADMITTED)
def test_what_fits_is_admitted_and_evicts_what_it_must(case: str) -> None:
    wanted, bound, idle, admitted, evicted = ADMITTED[case]
    found = decided(*wanted, bound=bound, idle=idle, **dict.fromkeys((one.stem for one in idle), FileState.READY))
    assert [one.admit for one in found] == admitted
    assert [gone.stem for one in found for gone in one.evictions] == evicted


@given(strategies.caches())
def test_each_class_gets_one_decision_that_keeps_the_bound_and_what_is_pinned(cache: Cache) -> None:
    """Used and reserved never exceed the bound, at any moment."""
    wanted, cached, usage, bound, idle, sizes = cache
    found = admit(wanted, cached, usage, bound, idle)
    assert [one.wanted for one in found] == wanted
    assert all(one.admit is Admit.RESERVE for one in found if one.evictions), "only a class that then fits evicts"
    gone, unpinned = [one.stem for decision in found for one in decision.evictions], [one.stem for one in idle]
    assert set(gone) <= set(unpinned) - {one.stem for one in wanted}
    assert len(gone) == len(set(gone))
    assert gone == [stem for stem in unpinned if stem in gone], "least recently used first, over the whole batch"
    held = {stem for stem, state in cached.items() if state in strategies.HOLDING}
    for one in found:
        held -= {gone.stem for gone in one.evictions}
        if one.admit is Admit.RESERVE:
            assert one.wanted.stem not in held
            held.add(one.wanted.stem)
        assert sum(sizes[stem] for stem in held) <= bound.max_bytes
        assert len(held) <= bound.max_num
        assert (one.wanted.stem in held) == (one.admit is not Admit.FULL)


@given(
    st.integers(0, 60),
    st.builds(Usage, st.integers(0, 100), st.integers(0, 8)),
    st.builds(Bound, st.integers(1, 100), st.integers(1, 8)),
    st.lists(st.integers(0, 30), max_size=8).map(lambda sizes: [Idle(str(n), size) for n, size in enumerate(sizes)]),
)
def test_evictions_are_the_shortest_prefix_that_makes_room(
    size_bytes: int, usage: Usage, bound: Bound, idle: list[Idle]
) -> None:
    def fits(without: list[Idle]) -> bool:
        left = usage.size_bytes - sum(one.size_bytes for one in without)
        return left + size_bytes <= bound.max_bytes and usage.num - len(without) + 1 <= bound.max_num

    shortest = next((idle[:count] for count in range(len(idle) + 1) if fits(idle[:count])), None)
    found = evictions(size_bytes, usage, bound, idle)
    assert (None if found is None else list(found)) == shortest


def test_a_refusal_names_the_bound_that_it_met_and_how_near_the_cache_is_to_it() -> None:
    of_number = no_room("1009", 419_481, Usage(6_000_000, 12), Bound(10**12, 12), [])
    assert of_number == "no room for 1009 (0.4 MB): booked classes need 12 of 12 renditions (MAX_VIDEO_NUM)"
    of_size = no_room("1009", 5 * 10**9, Usage(96 * 10**9, 12), Bound(100 * 10**9, 1000), [])
    assert of_size.endswith("booked classes need 96.0 GB of 100 GB (MAX_VIDEO_SIZE)")
    by_disk = no_room("1", 5 * 10**9, Usage(96 * 10**9, 1), Bound(10**11, 9, by_disk=True), [])
    assert "100 GB that the disk has room for" in by_disk


def test_what_is_larger_than_the_whole_cache_is_told_so_and_no_time() -> None:
    """No class need end for it: it never fits."""
    bound = Bound(10**9, 12)
    said = no_room("1009", 5 * 10**9, Usage(0, 12), bound, [])
    assert said == "no room for 1009 (5.0 GB): it is larger than the whole cache, 1.0 GB (MAX_VIDEO_SIZE)"
    assert next_place(5 * 10**9, bound, [Needed("1", 10, NOW + 60)]) is None
    by_disk = no_room("1009", 5 * 10**9, Usage(0, 1), Bound(10**9, 12, by_disk=True), [])
    assert by_disk.endswith("it is larger than the 1.0 GB that the disk has room for")


def held(stem: str, size_bytes: int, *ends_min: int) -> list[Needed]:
    """A rendition that classes need which end so many minutes from now."""
    return [Needed(stem, size_bytes, NOW + 60 * minutes) for minutes in ends_min]


NEXT: dict[str, tuple[int, Bound, list[tuple[int, ...]], int | None]] = {
    "MAX_VIDEO_NUM: the rendition whose last class ends first": (1, Bound(1_000, 2), [(2, 40), (9, 30, 90)], 40),
    "MAX_VIDEO_NUM, twice exceeded: the second one": (1, Bound(1_000, 1), [(2, 40), (9, 30)], 40),
    "MAX_VIDEO_SIZE: as many as make room for it": (8, Bound(10, 9), [(1, 10), (4, 20), (5, 30)], 30),
    "MAX_VIDEO_SIZE: one small and early is not enough": (4, Bound(10, 9), [(1, 10), (4, 20), (5, 30)], 20),
    "the disk: as the size": (6, Bound(10, 9, by_disk=True), [(5, 10), (5, 20)], 20),
    "both: when both fit": (9, Bound(10, 2), [(1, 10), (9, 50)], 50),
    "it fits now, so it is not the classes that are in the way": (1, Bound(10, 3), [(1, 10)], None),
    "nothing is needed": (1, Bound(10, 3), [], None),
}


@pytest.mark.parametrize("case", NEXT)
def test_the_next_place_is_free_when_the_bound_that_was_met_has_room(case: str) -> None:
    size_bytes, bound, renditions, minutes = NEXT[case]
    needed = [one for stem, (size, *ends) in enumerate(renditions) for one in held(str(stem), size, *ends)]
    assert next_place(size_bytes, bound, needed) == (None if minutes is None else NOW + 60 * minutes)


@given(
    st.integers(1, 60),
    st.builds(Bound, st.integers(1, 100), st.integers(1, 6)),
    st.lists(st.builds(Needed, st.sampled_from("abcdef"), st.just(20), st.integers(1, 50).map(float)), max_size=12),
)
def test_at_the_next_place_it_fits_and_never_before(size_bytes: int, bound: Bound, needed: list[Needed]) -> None:
    def fits(at: float) -> bool:
        stems = {one.stem for one in needed if one.until > at}
        return 20 * len(stems) + size_bytes <= bound.max_bytes and len(stems) < bound.max_num

    first = next((at for at in sorted(one.until for one in needed) if fits(at)), None)
    assert next_place(size_bytes, bound, needed) == (None if fits(0.0) else first)


def test_a_refusal_says_when_the_next_place_is_free_and_other_classes_are_told_nothing() -> None:
    bound = Bound(1_000, 1)
    decisions = admit([WantedRendition("c-1", "a", 1), WantedRendition("c-2", "b", 1)], {}, Usage(0, 0), bound, [])
    taken, refused = told_when(decisions, bound, held("a", 1, 45), NOW)
    assert (taken.why, refused.admit) == ("", Admit.FULL)
    free = formatting.when(NOW + 45 * 60, NOW)
    assert refused.why.endswith(f"1 of 1 rendition (MAX_VIDEO_NUM); the next place for it is free at {free}")


def test_a_place_of_another_day_has_its_date_and_what_could_be_evicted_is_not_needed() -> None:
    """All places are taken, half of them by renditions that no class needs: it is the size that does not fit."""
    bound = Bound(1_000, 1)
    (refused,) = told_when(
        admit([WantedRendition("c-2", "b", 1)], {}, Usage(1, 1), bound, []), bound, held("a", 1, 2880), NOW
    )
    assert refused.why.endswith(f"is free at {formatting.moment(NOW + 2880 * 60)}")
    idle = [Idle(str(number), 10**9) for number in range(6)]
    said = no_room("1009", 95 * 10**9, Usage(12 * 10**9, 12), Bound(100 * 10**9, 12), idle)
    assert said.endswith("booked classes need 6.0 GB of 100 GB (MAX_VIDEO_SIZE)")
