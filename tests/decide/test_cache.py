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


GB = 10**9
NO_ROOM: list[tuple[int, Usage, Bound, int, str]] = [  # its size, what is used, the bound, how many of 1 GB can go
    (5, Usage(0, 12), Bound(GB, 12), 0, "it is larger than the whole cache, 1.0 GB (MAX_VIDEO_SIZE)"),
    (5, Usage(0, 1), Bound(GB, 12, by_disk=True), 0, "it is larger than the 1.0 GB that the disk has room for"),
    (9, Usage(9 * GB, 1), Bound(9 * GB, 2), 0, "booked classes need 9.0 GB of 9.0 GB (MAX_VIDEO_SIZE)"),
    (9, Usage(9 * GB, 1), Bound(9 * GB, 2, True), 0, "booked classes need 9.0 GB of 9.0 GB that the disk has room for"),
    (95, Usage(12 * GB, 12), Bound(100 * GB, 12), 6, "booked classes need 6.0 GB of 100 GB (MAX_VIDEO_SIZE)"),
    (1, Usage(12 * GB, 12), Bound(100 * GB, 6), 6, "booked classes need all places for renditions (MAX_VIDEO_NUM=6)"),
]


def test_a_refusal_says_which_bound_is_exceeded() -> None:
    for size_gb, usage, bound, idle, why in NO_ROOM:
        said = no_room("1009", size_gb * GB, usage, bound, [Idle(str(number), GB) for number in range(idle)])
        assert said.startswith("no room for 1009 (")
        assert said.endswith(f" GB): {why}")


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


@pytest.mark.parametrize("in_s", [2700, 172_800])
def test_a_refusal_says_when_the_next_place_is_free_and_other_classes_are_told_nothing(in_s: int) -> None:
    """With its date if that is another day."""
    bound, free = Bound(1_000, 1), formatting.when(NOW + in_s, NOW)
    decisions = admit([WantedRendition("c-1", "a", 1), WantedRendition("c-2", "b", 1)], {}, Usage(0, 0), bound, [])
    taken, refused = decide.told_when(decisions, bound, [Needed("a", 1, NOW + in_s)], NOW)
    assert (taken.why, refused.admit) == ("", Admit.FULL)
    assert refused.why.endswith(f"(MAX_VIDEO_NUM=1); the next place for it is free at {free}")
    assert (free == formatting.moment(NOW + in_s)) is (in_s > 86_400)
