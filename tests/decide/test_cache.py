"""What a streamer's bounded cache does with a batch of classes."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lectern import formatting
from lectern.decide import cache as decide
from lectern.decide.cache import Admission, Admit, Bound, WantedRendition, admit, next_place, no_room
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
NEW, NEEDED, FIFTH = WantedRendition("c-1", "new", 5), WantedRendition("c-2", "old"), WantedRendition("c-5", "x", 5)
ADMITTED: dict[str, tuple[list[WantedRendition], Bound, list[Idle], list[Admit], list[str]]] = {
    "two of one rendition": ([NEW, replace(NEW, class_id="c-2")], ROOMY, [], [Admit.RESERVE, Admit.JOIN], []),
    "exactly full": ([replace(NEW, size_bytes=10)], TEN, [], [Admit.RESERVE], []),
    "one byte more is 316": ([replace(NEW, size_bytes=11)], TEN, [], [Admit.FULL], []),
    "their number is bounded, too": ([NEW], Bound(1_000, 2), [Idle("old", 1), Idle("x", 1)], [Admit.RESERVE], ["old"]),
    "what cannot fit evicts nothing": ([replace(NEW, size_bytes=11)], TEN, [Idle("old", 5)], [Admit.FULL], []),
    "the least recently used, no more than needed": ([NEW], TEN, OLD_ONES, [Admit.RESERVE], ["oldest", "older"]),
    "to the byte": ([NEW], TEN, [Idle("oldest", 5), Idle("older", 5)], [Admit.RESERVE], ["oldest"]),
    "and what is left to the next": ([NEW, FIFTH], Bound(10, 2), [Idle("old", 10)], [Admit.RESERVE] * 2, ["old"]),
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


def test_what_is_larger_than_the_whole_cache_is_told_so_and_no_time() -> None:
    """No class need end for it: it never fits."""
    bound = Bound(10**9, 12)
    said = no_room("1009", 5 * 10**9, Usage(0, 12), bound, [])
    assert said == "no room for 1009 (5.0 GB): it is larger than the whole cache, 1.0 GB (MAX_VIDEO_SIZE)"
    assert next_place(5 * 10**9, bound, [Needed("1", 10, NOW + 60)]) is None
    by_disk = no_room("1009", 5 * 10**9, Usage(0, 1), Bound(10**9, 12, by_disk=True), [])
    assert by_disk.endswith("it is larger than the 1.0 GB that the disk has room for")
    assert not any("larger" in no_room("1", 9, Usage(9, 1), Bound(9, 2, by_disk=one), []) for one in (False, True))


def held(stem: str, size_bytes: int, *ends_min: int) -> list[Needed]:
    """A rendition that classes need which end so many minutes from now."""
    return [Needed(stem, size_bytes, NOW + 60 * minutes) for minutes in ends_min]


@given(
    st.integers(1, 5),
    st.builds(Bound, st.integers(1, 9), st.integers(1, 6)),
    st.lists(st.builds(Needed, st.sampled_from("abcdef"), st.integers(1, 2), st.integers(1, 9).map(float)), max_size=9),
)
@example(1, Bound(2, 6), [Needed("a", 1, 9.0)])
@example(1, Bound(9, 2), [Needed("a", 1, 9.0)])
@example(2, Bound(3, 6), [Needed("a", 1, 9.0), Needed("a", 2, 9.0)])
def test_at_the_next_place_it_fits_and_never_before(size_bytes: int, bound: Bound, needed: list[Needed]) -> None:
    def fits(at: float) -> bool:
        stems = {one.stem for one in needed if one.until > at}
        sizes = [max(one.size_bytes for one in needed if one.stem == stem) for stem in stems]
        return sum(sizes) + size_bytes <= bound.max_bytes and len(stems) < bound.max_num

    first = next((at for at in sorted(one.until for one in needed) if fits(at)), None)
    assert next_place(size_bytes, bound, needed) == (None if fits(0.0) else first)


def test_a_refusal_says_when_the_next_place_is_free_and_other_classes_are_told_nothing() -> None:
    bound = Bound(1_000, 1)
    decisions = admit([WantedRendition("c-1", "a", 1), WantedRendition("c-2", "b", 1)], {}, Usage(0, 0), bound, [])
    taken, refused = decide.told_when(decisions, bound, held("a", 1, 45), NOW)
    assert (taken.why, refused.admit) == ("", Admit.FULL)
    free = formatting.when(NOW + 45 * 60, NOW)
    assert refused.why.endswith(f"1 of 1 rendition (MAX_VIDEO_NUM); the next place for it is free at {free}")


def test_a_place_of_another_day_has_its_date_and_what_could_be_evicted_is_not_needed() -> None:
    """All places are taken, half of them by renditions that no class needs: it is the size that does not fit."""
    bound = Bound(1_000, 1)
    (refused,) = decide.told_when(
        admit([WantedRendition("c-2", "b", 1)], {}, Usage(1, 1), bound, []), bound, held("a", 1, 2880), NOW
    )
    assert refused.why.endswith(f"is free at {formatting.moment(NOW + 2880 * 60)}")
    idle = [Idle(str(number), 10**9) for number in range(6)]
    said = no_room("1009", 95 * 10**9, Usage(12 * 10**9, 12), Bound(100 * 10**9, 12), idle)
    assert said.endswith("booked classes need 6.0 GB of 100 GB (MAX_VIDEO_SIZE)")
