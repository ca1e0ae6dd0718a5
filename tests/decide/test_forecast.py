"""When renditions will be there: what a booking is told is what becomes true, and what was told in time stays so."""

import math
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lectern.decide import forecast as decide
from lectern.decide.bandwidth import PUSHES, Bounds, Download
from lectern.decide.forecast import NEVER, SAFE, SURE, Ask, Capacity, Transcoding, arrivals, forecast, transcoded_at
from lectern.model.facts import Needed
from lectern.model.views import StreamerStatus
from lectern.states import Backend
from lectern.windows import ALWAYS, Windows
from tests.strategies import booking, transcoders

NOW = 1_764_010_800.0
MB = 1_000_000
DAY_S = 86_400.0
ALONE = Capacity(Bounds(math.inf, MB, 4))
"""Four downloads at a megabyte a second each."""


def checked_s(megabytes: float) -> float:
    return decide.CHECK_S + megabytes * MB / decide.CHECK_BYTES


def fetch(stem: str, megabytes: float, in_s: float = math.inf) -> Download:
    return Download(stem, int(megabytes * MB), NOW + in_s)


def takes_s(megabytes: float) -> float:
    """Seconds that a download takes that has nothing before it."""
    return megabytes * SURE + checked_s(megabytes)


NIGHT = replace(ALONE.bounds, windows=Windows.parsed("20:00-24:00=2m", "UTC"))
"""Nothing until 20:00, which is in an hour; then two mebibytes a second for all together."""

OPENS = NOW + 3600


def near(at: float) -> object:
    return pytest.approx(at, rel=0, abs=0.5)


SENT = Needed("x", 8 * MB, NOW + 3600, NOW + 1200, duration_s=10.0)
PUSHED = Capacity(Bounds(PUSHES * 0.8 * MB + 0.2 * MB, MB, 4), [SENT])
"""From ten minutes before a class until its end a fifth is left of the network: it has 8 Mbit/s of 10."""

ARRIVALS: dict[str, tuple[list[Download], Capacity, dict[str, float]]] = {
    "alone, its bytes and its checks": ([fetch("a", 100)], ALONE, {"a": takes_s(100)}),
    "half": ([replace(fetch("a", 100), came_bytes=50 * MB)], ALONE, {"a": 50 * SURE + checked_s(100)}),
    "a fifth waits for a place, the nearest class goes first": (
        [fetch(str(n), 100, 10_000 - n) for n in range(5)],
        ALONE,
        {**dict.fromkeys("1234", takes_s(100)), "0": 2 * takes_s(100)},
    ),
    "pushes come first": ([fetch("a", 2000)], PUSHED, {"a": 3600 + (2000 * SURE - 600 - 3000 * 0.2) + checked_s(2000)}),
    "also of one whose length is not known, over all of its time": (
        [fetch("a", 2000)],
        replace(PUSHED, needed=[Needed("x", int(0.8 * MB * 2400), NOW + 3600, NOW + 1200)]),
        {"a": 3600 + (2000 * SURE - 600 - 3000 * 0.2) + checked_s(2000)},
    ),
    "nothing is left for it": ([fetch("a", 1)], Capacity(Bounds(0, MB, 4)), {"a": NEVER - NOW}),
    "no bound": ([fetch("a", 1)], Capacity(Bounds(math.inf, math.inf, 4)), {"a": checked_s(1)}),
}


@pytest.mark.parametrize("case", ARRIVALS)
def test_a_download_comes_when_its_bytes_have_come_and_are_checked(case: str) -> None:
    some, capacity, within_s = ARRIVALS[case]
    assert arrivals(some, capacity, NOW) == {stem: near(NOW + in_s) for stem, in_s in within_s.items()}


def test_what_need_not_come_at_once_waits_for_its_window_and_the_window_is_shared() -> None:
    some = [fetch("a", 100, 9000), fetch("b", 100, 9001), fetch("c", 100, 9002), fetch("urgent", 100, 600)]
    found = arrivals(some, Capacity(NIGHT), NOW)
    assert found["urgent"] == near(NOW + takes_s(100))
    assert found["a"] == near(OPENS + takes_s(100))
    assert OPENS + 1.5 * takes_s(100) < found["c"] < OPENS + 2 * takes_s(100) + 3


def test_slow_checks_are_told() -> None:
    quick = [(0.1, MB)] * 45 + [(9.0, MB)] * 5
    assert decide.slowness(quick[-4:]) == 1.0, "a few say nothing"
    assert decide.slowness(quick) == pytest.approx(0.1 / checked_s(1))
    assert decide.slowness([(9.0, MB)] * 10) == pytest.approx(9.0 / checked_s(1))


# -- which classes are taken -------------------------------------------------------------------------------------------


def ask(stem: str, megabytes: float, in_s: float, *, first: bool = False) -> Ask:
    push = Needed(stem, int(megabytes * MB), NOW + in_s + 2700, NOW + in_s)
    return Ask(f"c-{stem}", fetch(stem, megabytes, in_s), NOW + in_s, push, first)


def test_a_class_whose_recording_comes_too_late_is_refused_and_the_others_are_taken() -> None:
    some = [ask("a", 100, 200), ask("b", 100, 50), ask("c", 100, 300)]
    found = forecast(some, [], ALONE, NOW)
    assert (set(found.ready_at), set(found.too_late), found.harmed) == ({"c-a", "c-c"}, {"c-b"}, {})
    assert found.too_late["c-b"] == near(NOW + 100 * SAFE + checked_s(100))


FOUR, EIGHT = ([fetch(str(n), 100, 150 if n < 4 else 250) for n in range(number)] for number in (4, 8))
UNDER_WAY = [fetch("a", 100, DAY_S), *(fetch(str(n), 100, 300) for n in range(4))]
TAKEN: dict[str, tuple[Ask, list[Download], float | None]] = {
    "the queue counts": (ask("a", 100, 300), EIGHT, None),
    "behind the queue": (ask("a", 100, 400), EIGHT, 3 * takes_s(100)),
    "not at the expense of one that was told in time": (ask("a", 100, 140), FOUR, None),
    "it was promised elsewhere": (ask("a", 100, 140, first=True), FOUR, takes_s(100)),
    "what is under way becomes more urgent": (ask("a", 100, 150), UNDER_WAY, takes_s(100)),
}


@pytest.mark.parametrize("case", TAKEN)
def test_a_class_is_taken_if_its_recording_comes_in_time_and_harms_no_other(case: str) -> None:
    asked, queue, in_s = TAKEN[case]
    found = forecast([asked], queue, ALONE, NOW)
    assert found.ready_at == ({} if in_s is None else {"c-a": near(NOW + in_s)})
    assert (found.too_late.keys() == {"c-a"}) == (in_s is None)
    assert set(found.harmed) == ({"c-a"} if queue is FOUR and in_s is None else set())


def test_whoever_asks_before_booking_is_told_when_the_quickest_streamer_would_have_it() -> None:
    """Of what it has to download anyway, only the length of the recording differs."""
    busy, free = StreamerStatus(NOW, {}, {}, [], booked_now_s=(300.0, 900.0)), StreamerStatus(NOW, {}, {}, [])
    quick = replace(free, booked_now_s=(10.0, 610.0))
    assert decide.about([busy, free], 1800, NOW) == NOW + 600
    assert decide.about([busy, free, quick], 1800, NOW) == NOW + 310
    assert decide.about([free, replace(quick, silent_s=99.0)], 1800, NOW) is None


@pytest.mark.parametrize(("made_at", "at"), [(None, NOW + 10), (NOW + 50, NOW + 60)])
def test_it_counts_from_now_or_from_when_the_rendition_is_made(made_at: float | None, at: float) -> None:
    quick = StreamerStatus(NOW, {}, {}, [], booked_now_s=(10.0, 10.0))
    found, said = decide.booked_now(booking(), [quick], NOW, made_at)
    assert found == at
    assert ("about" in said) is (made_at is not None)
    assert decide.booked_now(booking(), [], NOW, made_at) == (None, "")


def test_a_rendition_that_comes_after_the_start_is_said_to_be_late_and_one_that_never_comes_has_no_time() -> None:
    said = [decide.will_be_there("6", at, NOW, NOW) for at in (NOW - 5, NOW, NOW + 5, NEVER)]
    spans = [{name: one.args[name] for name in ("early_s", "late_s") if name in one.args} for one in said]
    assert spans == [{"early_s": 5}, {"early_s": 0}, {"late_s": 5}, {}]


TOOK_S = [100.0, 20.0, 10.0, 30.0, 40.0, 60.0, 50.0, 70.0, 90.0, 80.0]
"""Seconds that the last transcodings took: nine of ten took at most 90."""

TOOK: dict[Backend | None, list[float]] = {Backend.OSS: TOOK_S, Backend.ECS: TOOK_S}
TWO_PLACES = transcoders(max_ecs_jobs=2)


def made(record_id: int, backend: Backend | None, in_s: float = 9000, begun_s_ago: float | None = None) -> Transcoding:
    begun = None if begun_s_ago is None else NOW - begun_s_ago
    return Transcoding(f"r{record_id}", record_id, backend, NOW + in_s, begun)


def ours(record_id: int, in_s: float = 9000, begun_s_ago: float | None = None) -> Transcoding:
    return made(record_id, Backend.ECS, in_s, begun_s_ago)


ENDS: dict[str, tuple[list[Transcoding], dict[str, float]]] = {
    "asked for now": ([made(1, Backend.OSS)], {"r1": 90}),
    "begun": ([made(1, Backend.OSS, begun_s_ago=30)], {"r1": 60}),
    "soon done": ([ours(1, begun_s_ago=85)], {"r1": 5}),
    "the clock was set back": ([made(1, Backend.OSS, begun_s_ago=-30)], {"r1": 90}),
    "it takes longer than any other, so nobody knows": ([made(1, Backend.OSS, begun_s_ago=100)], {}),
    "an old program has it made": ([made(1, None)], {}),
    "two records at a time": ([ours(1, 800), ours(2, 700), ours(3, 600)], {"r3": 90, "r2": 90, "r1": 180}),
    "one is begun": ([ours(1, 800, 30), ours(2, 700), ours(3, 600)], {"r1": 60, "r3": 90, "r2": 180}),
    "three resolutions of a record are made together": ([ours(1)] * 3, {"r1": 90}),
}


def test_a_transcoding_ends_as_most_of_the_last_ones_did() -> None:
    """Our own servers take records by the starts of their classes."""
    found = {case: transcoded_at(some, TOOK, TWO_PLACES, NOW) for case, (some, _) in ENDS.items()}
    assert found == {case: {stem: NOW + in_s for stem, in_s in its.items()} for case, (_, its) in ENDS.items()}


def test_little_is_forecast_from_few_transcodings() -> None:
    few: dict[Backend | None, list[float]] = {Backend.OSS: TOOK_S[:4], Backend.ECS: TOOK_S}
    assert transcoded_at([made(1, Backend.OSS), ours(2)], few, transcoders(ecs=False), NOW) == {}
    assert [decide.quick_half_s(TOOK_S[:number]) for number in (10, 5, 4)] == [50, 30, None]


def test_what_waits_for_a_window_of_our_own_servers_is_made_in_it() -> None:
    """What would be too late then is made at once, and so is what the OSS makes."""
    nightly = transcoders(max_ecs_jobs=2, transcode_windows="20:00-24:00", timezone="UTC", ready_before_s=600)
    soon, later, oss = ours(1, 7200), ours(2, 9 * 3600), made(3, Backend.OSS, 9 * 3600)
    found = transcoded_at([soon, later, oss], TOOK, nightly, NOW)
    assert found == {"r1": NOW + 90, "r2": OPENS + 90, "r3": NOW + 90}
    assert transcoded_at([later], {Backend.ECS: [1e6] * 5}, nightly, NOW) == {}, "in no window"


sizes = st.floats(0.1, 5000)
coming = st.lists(st.tuples(sizes, st.floats(10, 2 * DAY_S)), max_size=8)
networks = st.builds(
    lambda host, each, number, windows: Capacity(Bounds(host * MB, each * MB, number, windows)),
    st.sampled_from([0.5, 3, 20, math.inf]),
    st.sampled_from([0.3, 1, 10]),
    st.integers(1, 5),
    st.sampled_from([ALWAYS, NIGHT.windows]),
)


def with_pushes(network: Capacity, asks: list[Ask]) -> Capacity:
    return replace(network, needed=[*network.needed, *(one.push for one in asks)])


@given(coming, coming, networks)
@example(
    [], [(1137.0, 90539.0), (1806.0, 12058.0), (978.0, 93028.0)], Capacity(Bounds(0.5 * MB, 0.3 * MB, 1, NIGHT.windows))
)
def test_what_was_told_in_time_stays_in_time_whatever_is_booked_after_it(
    some: list[tuple[float, float]], more: list[tuple[float, float]], network: Capacity
) -> None:
    first = forecast([ask(f"a{n}", *one) for n, one in enumerate(some)], [], network, NOW)
    kept = [fetch(f"a{n}", *one) for n, one in enumerate(some) if f"c-a{n}" in first.ready_at]
    assert all(first.ready_at[f"c-{one.stem}"] <= one.deadline for one in kept)
    network = with_pushes(network, [ask(f"a{n}", *one) for n, one in enumerate(some) if f"c-a{n}" in first.ready_at])
    asks = [ask(f"b{n}", *one) for n, one in enumerate(more)]
    then = forecast(asks, kept, network, NOW)
    assert then.ready_at.keys() | then.too_late.keys() == {one.class_id for one in asks}
    together = [*kept, *(one.download for one in asks if one.class_id in then.ready_at)]
    found = arrivals(together, with_pushes(network, [one for one in asks if one.class_id in then.ready_at]), NOW)
    assert all(found[one.stem] <= one.deadline for one in together)
    assert all(at == near(found[class_id.removeprefix("c-")]) for class_id, at in then.ready_at.items())


@given(coming, networks)
def test_nothing_comes_before_its_own_bytes_can_and_each_bound_is_kept(
    some: list[tuple[float, float]], network: Capacity
) -> None:
    fetches = [fetch(str(n), *one) for n, one in enumerate(some)]
    found = arrivals(fetches, network, NOW)
    assert all(found[f.stem] >= NOW + f.left_bytes / network.bounds.each_bytes for f in fetches)
    last = max(found.values(), default=NOW)
    assert sum(f.left_bytes for f in fetches) <= min(network.bounds.host_bytes, 1e12) * (last - NOW) + 1
