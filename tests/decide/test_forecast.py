"""When renditions will be there: what a booking is told is what becomes true, and what was told in time stays so."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern.decide.bandwidth import PUSHES, Bounds
from lectern.decide.forecast import (
    CHECK_BYTES,
    CHECK_S,
    NEVER,
    SURE,
    Ask,
    Fetch,
    Network,
    Pieces,
    arrivals,
    outlook,
    slowness,
)
from lectern.model.facts import Needed

NOW = 1_764_010_800.0
MB = 1_000_000
DAY_S = 86_400.0
ALONE = Network(Bounds(math.inf, MB, 4))
"""Four downloads at a megabyte a second each."""


def checked_s(megabytes: float) -> float:
    return CHECK_S + megabytes * MB / CHECK_BYTES


def fetch(stem: str, megabytes: float, in_s: float = math.inf, *, begun: bool = False) -> Fetch:
    return Fetch(stem, int(megabytes * MB), int(megabytes * MB), NOW + in_s, begun)


def takes_s(megabytes: float) -> float:
    """Seconds that a download takes that has nothing before it."""
    return megabytes * SURE + checked_s(megabytes)


def night(at: float) -> Pieces:
    """Nothing for an hour, then two megabytes a second for all together."""
    yield at, NOW + 3600, 0.0
    yield NOW + 3600, math.inf, 2.0 * MB


def test_a_download_alone_takes_its_bytes_at_its_rate_and_its_checks() -> None:
    assert arrivals([fetch("a", 100)], ALONE, NOW) == {"a": pytest.approx(NOW + takes_s(100))}
    half = replace(fetch("a", 100), left_bytes=50 * MB)
    assert arrivals([half], ALONE, NOW)["a"] == pytest.approx(NOW + 50 * SURE + checked_s(100))


def test_a_fifth_download_waits_for_a_place_and_the_nearest_class_goes_first() -> None:
    found = arrivals([fetch(str(n), 100, 10_000 - n) for n in range(5)], ALONE, NOW)
    assert {stem: round(at - NOW) for stem, at in found.items()} == {
        **dict.fromkeys("1234", round(takes_s(100))),
        "0": round(2 * takes_s(100)),
    }


def test_a_download_that_has_begun_keeps_its_place() -> None:
    one_by_one = Network(Bounds(math.inf, MB, 1))
    found = arrivals([fetch("urgent", 100, 60), fetch("begun", 100, DAY_S, begun=True)], one_by_one, NOW)
    assert found["begun"] < found["urgent"]


def test_pushes_come_first() -> None:
    """From ten minutes before a class until its end a fifth is left of the network: it has 8 Mbit/s of 10."""
    class_ = Needed("x", 8 * MB, NOW + 3600, NOW + 1200, duration_s=10.0)
    network = Network(Bounds(PUSHES * 0.8 * MB + 0.2 * MB, MB, 4), [class_])
    before_s, megabytes = 600.0, 2000.0
    found = arrivals([fetch("a", megabytes)], network, NOW)["a"]
    assert found == pytest.approx(NOW + 3600 + (megabytes * SURE - before_s - 3000 * 0.2) + checked_s(megabytes))


def test_windows_count() -> None:
    found = arrivals([fetch("a", 100), fetch("b", 100), fetch("c", 100)], replace(ALONE, windows=night), NOW)
    assert found["a"] == pytest.approx(NOW + 3600 + takes_s(100))
    assert found["c"] == pytest.approx(NOW + 3600 + 2 * 100 * SURE + checked_s(100))


def test_what_nothing_is_left_for_never_comes() -> None:
    assert arrivals([fetch("a", 1)], Network(Bounds(0, MB, 4)), NOW) == {"a": NEVER}
    assert arrivals([fetch("a", 1)], Network(Bounds(math.inf, math.inf, 4)), NOW)["a"] == pytest.approx(
        NOW + checked_s(1)
    )


def test_slow_checks_are_told() -> None:
    quick = [(0.1, MB)] * 45 + [(9.0, MB)] * 5
    assert slowness(quick[-4:]) == 1.0, "a few say nothing"
    assert slowness(quick) == pytest.approx(0.1 / checked_s(1))
    assert slowness([(9.0, MB)] * 10) == pytest.approx(9.0 / checked_s(1))


# -- which classes are taken -------------------------------------------------------------------------------------------


def ask(stem: str, megabytes: float, in_s: float, *, first: bool = False) -> Ask:
    return Ask(f"c-{stem}", fetch(stem, megabytes, in_s), NOW + in_s, first)


def test_a_class_whose_recording_comes_too_late_is_refused_and_the_others_are_taken() -> None:
    some = [ask("a", 100, 200), ask("b", 100, 50), ask("c", 100, 300)]
    found = outlook(some, [], ALONE, NOW)
    assert (set(found.ready_at), set(found.too_late), found.harmed) == ({"c-a", "c-c"}, {"c-b"}, {})
    assert found.too_late["c-b"] == pytest.approx(NOW + takes_s(100))


def test_the_queue_counts() -> None:
    queue = [fetch(str(n), 100, 125 if n < 4 else 250) for n in range(8)]
    assert outlook([ask("a", 100, 300)], queue, ALONE, NOW).too_late.keys() == {"c-a"}
    assert outlook([ask("a", 100, 400)], queue, ALONE, NOW).ready_at["c-a"] == pytest.approx(NOW + 3 * takes_s(100))


def test_a_class_is_not_taken_at_the_expense_of_one_that_was_told_in_time() -> None:
    queue = [fetch(str(n), 100, 130) for n in range(4)]
    found = outlook([ask("a", 100, 120)], queue, ALONE, NOW)
    assert (set(found.harmed), set(found.too_late)) == ({"c-a"}, {"c-a"})
    assert found.harmed["c-a"] in "0123"


def test_a_class_that_was_promised_elsewhere_is_taken_all_the_same() -> None:
    queue = [fetch(str(n), 100, 130) for n in range(4)]
    found = outlook([ask("a", 100, 120, first=True)], queue, ALONE, NOW)
    assert (set(found.ready_at), set(found.too_late)) == ({"c-a"}, set())


def test_a_class_that_needs_what_is_under_way_makes_it_more_urgent() -> None:
    queue = [fetch("a", 100, DAY_S), *(fetch(str(n), 100, 200) for n in range(4))]
    found = outlook([Ask("c", replace(queue[0], deadline=NOW + 150), NOW + 150)], queue, ALONE, NOW)
    assert found.too_late == {"c": pytest.approx(NOW + takes_s(100))} or found.ready_at.keys() == {"c"}


sizes = st.floats(0.1, 5000)
coming = st.lists(st.tuples(sizes, st.floats(10, 2 * DAY_S)), max_size=8)
networks = st.builds(
    lambda host, each, number, window: Network(
        Bounds(host * MB, each * MB, number), windows=night if window else ALONE.windows
    ),
    st.sampled_from([0.5, 3, 20, math.inf]),
    st.sampled_from([0.3, 1, 10]),
    st.integers(1, 5),
    st.booleans(),
)


@given(coming, coming, networks)
def test_what_was_told_in_time_stays_in_time_whatever_is_booked_after_it(
    some: list[tuple[float, float]], more: list[tuple[float, float]], network: Network
) -> None:
    first = outlook([ask(f"a{n}", *one) for n, one in enumerate(some)], [], network, NOW)
    kept = [fetch(f"a{n}", *one) for n, one in enumerate(some) if f"c-a{n}" in first.ready_at]
    assert all(first.ready_at[f"c-{one.stem}"] <= one.deadline for one in kept)
    asks = [ask(f"b{n}", *one) for n, one in enumerate(more)]
    then = outlook(asks, kept, network, NOW)
    assert then.ready_at.keys() | then.too_late.keys() == {one.class_id for one in asks}
    together = [*kept, *(one.fetch for one in asks if one.class_id in then.ready_at)]
    found = arrivals(together, network, NOW)
    assert all(found[one.stem] <= one.deadline for one in together)
    assert all(at == pytest.approx(found[class_id.removeprefix("c-")]) for class_id, at in then.ready_at.items())


@given(coming, networks)
def test_nothing_comes_before_its_own_bytes_can_and_each_bound_is_kept(
    some: list[tuple[float, float]], network: Network
) -> None:
    fetches = [fetch(str(n), *one) for n, one in enumerate(some)]
    found = arrivals(fetches, network, NOW)
    assert all(found[f.stem] >= NOW + f.left_bytes / network.bounds.each_bytes for f in fetches)
    last = max(found.values(), default=NOW)
    assert sum(f.left_bytes for f in fetches) <= min(network.bounds.host_bytes, 1e12) * (last - NOW) + 1
