"""Which streamer airs a class."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lectern.decide.placement import place, ranking

STREAMERS = [f"streamer{number}" for number in range(1, 6)]
IDLE = dict.fromkeys(STREAMERS, 0)
UNBOUNDED = 1e9
stems = st.lists(st.from_regex(r"[1-9][0-9]{0,3}_720P", fullmatch=True), max_size=40)
loads = st.dictionaries(st.sampled_from(STREAMERS), st.integers(0, 50), min_size=1)


def test_with_no_streamer_alive_there_is_no_place() -> None:
    assert place(["1_720P", "2_720P"], {}, 1.25) == [None, None]


def test_classes_of_one_rendition_meet_on_one_streamer_while_it_has_room() -> None:
    assert len(set(place(["6666_720P"] * 20, IDLE, UNBOUNDED))) == 1


def test_a_popular_rendition_spreads_when_its_streamer_has_more_than_its_share() -> None:
    counts = Counter(place(["6666_720P"] * 100, IDLE, 1.25))
    assert max(counts.values()) <= math.ceil(1.25 * 100 / 5)
    assert len(counts) > 1


def test_a_thousand_records_spread_evenly() -> None:
    counts = Counter(place([f"{number}_720P" for number in range(1_000)], IDLE, 1.25))
    assert set(counts) == set(STREAMERS)
    assert max(counts.values()) <= 250


@given(stems, st.sampled_from(STREAMERS))
def test_a_streamer_that_dies_moves_only_its_own_renditions(wanted: list[str], dead: str) -> None:
    before = place(wanted, IDLE, UNBOUNDED)
    after = place(wanted, {name: 0 for name in STREAMERS if name != dead}, UNBOUNDED)
    assert dead not in after
    assert all(new == old for old, new in zip(before, after, strict=True) if old != dead)


@given(st.permutations(STREAMERS))
def test_the_ranking_does_not_depend_on_the_order_in_which_streamers_are_named(named: list[str]) -> None:
    assert ranking("6666_720P", named) == ranking("6666_720P", STREAMERS)


@given(stems, loads, st.floats(1, 4))
def test_every_class_finds_a_living_streamer_that_is_within_its_share(
    wanted: list[str], before: dict[str, int], slack: float
) -> None:
    placed = place(wanted, before, slack)
    assert len(placed) == len(wanted)
    now = Counter(before)
    for name in placed:
        assert name in before
        assert name is not None
        now[name] += 1
        assert now[name] <= math.ceil(slack * sum(now.values()) / len(before))


@given(stems, loads)
def test_a_batch_placed_at_once_equals_the_same_classes_placed_one_at_a_time(
    wanted: list[str], before: dict[str, int]
) -> None:
    now = dict(before)
    singly = []
    for stem in wanted:
        (name,) = place([stem], now, 1.25)
        assert name is not None
        now[name] += 1
        singly.append(name)
    assert place(wanted, before, 1.25) == singly
