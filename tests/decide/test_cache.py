"""What a streamer's bounded cache does with a batch of classes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern.decide.cache import Admission, Admit, Bound, Wanted, admit, evictions, no_room
from lectern.facts import Idle, Usage
from lectern.states import FileState
from tests import strategies

ROOMY = Bound(max_bytes=1_000, max_num=10)
Cache = tuple[list[Wanted], dict[str, FileState], Usage, Bound, list[Idle], dict[str, int]]


def decided(
    *wanted: Wanted, bound: Bound = ROOMY, idle: list[Idle] | None = None, **cached: FileState
) -> list[Admission]:
    held = idle or []
    return admit(wanted, cached, Usage(sum(one.size_bytes for one in held), len(held)), bound, held)


def test_a_cached_rendition_is_only_cited() -> None:
    assert [one.admit for one in decided(Wanted("c-1", "a"), a=FileState.READY)] == [Admit.READY]


def test_a_rendition_under_download_is_joined() -> None:
    assert [one.admit for one in decided(Wanted("c-1", "a"), a=FileState.DOWNLOADING)] == [Admit.JOIN]


@pytest.mark.parametrize("state", [FileState.BAD, FileState.EVICTING])
def test_a_rendition_whose_download_failed_or_whose_file_is_going_is_downloaded_again(state: FileState) -> None:
    assert [one.admit for one in decided(Wanted("c-1", "a", 5), a=state)] == [Admit.RESERVE]


def test_two_classes_of_one_rendition_make_one_reservation() -> None:
    assert [one.admit for one in decided(Wanted("c-1", "a", 5), Wanted("c-2", "a", 5))] == [Admit.RESERVE, Admit.JOIN]


def test_exactly_full_still_fits_and_one_byte_more_is_316() -> None:
    bound = Bound(10, 10)
    assert [one.admit for one in decided(Wanted("c-1", "a", 10), bound=bound)] == [Admit.RESERVE]
    assert [one.admit for one in decided(Wanted("c-1", "a", 11), bound=bound)] == [Admit.FULL]


def test_the_number_of_renditions_is_bounded_as_well_as_their_size() -> None:
    (one,) = decided(Wanted("c-1", "a", 1), bound=Bound(1_000, 1), idle=[Idle("old", 1)], old=FileState.READY)
    assert one.evictions == (Idle("old", 1),)


def test_what_cannot_fit_evicts_nothing() -> None:
    (one,) = decided(Wanted("c-1", "a", 11), bound=Bound(10, 10), idle=[Idle("old", 5)], old=FileState.READY)
    assert (one.admit, one.evictions) == (Admit.FULL, ())


def test_the_least_recently_used_go_first_and_no_more_than_needed() -> None:
    idle = [Idle("oldest", 3), Idle("older", 3), Idle("old", 3)]
    cached = dict.fromkeys(("oldest", "older", "old"), FileState.READY)
    (one,) = decided(Wanted("c-1", "a", 5), bound=Bound(10, 10), idle=idle, **cached)
    assert [gone.stem for gone in one.evictions] == ["oldest", "older"]


@pytest.mark.parametrize("order", [1, -1])
def test_what_one_class_of_the_batch_needs_is_not_evicted_for_another(order: int) -> None:
    wanted = [Wanted("c-1", "new", 5), Wanted("c-2", "old")][::order]
    idle = [Idle("old", 6), Idle("unused", 4)]
    both = decided(*wanted, bound=Bound(10, 10), idle=idle, old=FileState.READY, unused=FileState.READY)
    assert {one.wanted.stem: one.admit for one in both} == {"new": Admit.FULL, "old": Admit.READY}


@given(strategies.caches())
def test_every_class_gets_exactly_one_decision_in_its_order(cache: Cache) -> None:
    wanted, cached, usage, bound, idle, _ = cache
    assert [one.wanted for one in admit(wanted, cached, usage, bound, idle)] == wanted


@given(strategies.caches())
def test_used_and_reserved_never_exceed_the_bound_at_any_moment(cache: Cache) -> None:
    wanted, cached, usage, bound, idle, sizes = cache
    held = {stem for stem, state in cached.items() if state in strategies.HOLDING}
    for one in admit(wanted, cached, usage, bound, idle):
        held -= {gone.stem for gone in one.evictions}
        if one.admit is Admit.RESERVE:
            assert one.wanted.stem not in held
            held.add(one.wanted.stem)
        assert sum(sizes[stem] for stem in held) <= bound.max_bytes
        assert len(held) <= bound.max_num
        assert (one.wanted.stem in held) == (one.admit is not Admit.FULL)


@given(strategies.caches())
def test_pinned_renditions_are_never_evicted(cache: Cache) -> None:
    wanted, cached, usage, bound, idle, _ = cache
    gone = [one.stem for decision in admit(wanted, cached, usage, bound, idle) for one in decision.evictions]
    unpinned = [one.stem for one in idle]
    assert set(gone) <= set(unpinned) - {one.stem for one in wanted}
    assert len(gone) == len(set(gone))
    assert gone == [stem for stem in unpinned if stem in gone], "least recently used first, over the whole batch"


@given(strategies.caches())
def test_only_a_class_that_then_fits_evicts(cache: Cache) -> None:
    wanted, cached, usage, bound, idle, _ = cache
    assert all(one.admit is Admit.RESERVE for one in admit(wanted, cached, usage, bound, idle) if one.evictions)


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


def test_what_could_be_evicted_is_not_said_to_be_needed() -> None:
    """All places are taken, half of them by renditions that no class needs: it is the size that does not fit."""
    idle = [Idle(str(number), 10**9) for number in range(6)]
    said = no_room("1009", 95 * 10**9, Usage(12 * 10**9, 12), Bound(100 * 10**9, 12), idle)
    assert said.endswith("booked classes need 6.0 GB of 100 GB (MAX_VIDEO_SIZE)")


def test_what_is_refused_for_want_of_room_has_its_reason() -> None:
    (full,) = admit([Wanted("c", "1", 10)], {}, Usage(0, 1), Bound(100, 1), [])
    assert (full.admit, "MAX_VIDEO_NUM" in full.why) == (Admit.FULL, True)
