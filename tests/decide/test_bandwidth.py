"""Pushes come first; what they leave goes to the downloads, the most urgent first."""

import math
from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from lectern.decide import bandwidth as decide
from lectern.decide.bandwidth import LEAST_BYTES, Bounds, Download, Pushes, Shares, Turn, in_words, shared_out, turns
from lectern.model.facts import Needed
from lectern.windows import Windows

NOW = 1_764_010_800.0
MB = 1_000_000.0

sizes = st.integers(0, 10**10)
deadlines = st.one_of(st.just(math.inf), st.floats(NOW - 3600, NOW + 10 * 86_400))
downloads = st.lists(st.tuples(sizes, deadlines), max_size=12).map(
    lambda some: [Download(str(number), *one) for number, one in enumerate(some)]
)
bounds = st.builds(Bounds, st.one_of(st.just(math.inf), st.floats(0, 1e9)), st.floats(1, 1e8), st.integers(12, 20))
pushes = st.builds(Pushes, st.floats(0, 1e9), st.floats(0, 5))
shares = st.builds(Shares, share=st.floats(1 / 16, 1))


@given(downloads, bounds, pushes, shares)
def test_what_pushes_need_is_given_to_no_download_and_the_rest_to_the_urgent(
    some: list[Download], bound: Bounds, push: Pushes, before: Shares
) -> None:
    rates = shared_out(some, bound, push, before, NOW).rates
    assert rates.keys() == {one.stem for one in some}
    assert sum(rates.values()) <= max(bound.host_bytes - decide.PUSHES * push.need_bytes, 0) * (1 + 1e-9)
    assert all(0 <= rate <= bound.each_bytes for rate in rates.values())
    assert all(rate == 0 or rate >= min(LEAST_BYTES, bound.each_bytes) for rate in rates.values())
    order = sorted(some, key=lambda one: (one.deadline - one.left_bytes / bound.each_bytes, one.stem))
    able = [one for one in order if push.behind_s <= 0.3 or one.deadline - NOW <= decide.URGENT_S]
    given_ = [rates[one.stem] for one in able]
    assert given_ == sorted(given_, reverse=True), "less than a later one gets only what may wait"


@given(downloads, bounds, st.floats(0, 1e9))
def test_nothing_is_left_over_while_a_download_wants_it(some: list[Download], bound: Bounds, need_bytes: float) -> None:
    rates = shared_out(some, bound, Pushes(need_bytes), Shares(), NOW).rates
    left = max(bound.host_bytes - decide.PUSHES * need_bytes, 0) - sum(rates.values())
    assert left < min(LEAST_BYTES, bound.each_bytes) + 1 or all(rate == bound.each_bytes for rate in rates.values())


@given(downloads, bounds, pushes, shares)
def test_while_a_class_is_behind_downloads_are_cut_and_what_may_wait_waits(
    some: list[Download], bound: Bounds, push: Pushes, before: Shares
) -> None:
    behind = Pushes(push.need_bytes, 0.31)
    found = shared_out(some, bound, behind, before, NOW)
    assert found.share <= max(before.share / 4, 1 / 16)
    assert all(found.rates[one.stem] == 0 for one in some if one.deadline - NOW > decide.URGENT_S)
    calm = shared_out(some, bound, Pushes(push.need_bytes), before, NOW)
    assert sum(found.rates.values()) <= sum(calm.rates.values())


def test_after_a_cut_downloads_have_all_again_within_ten_looks() -> None:
    found, many = Shares(share=1.0), [Download("a", 10**9, NOW + 60)]
    for _ in range(5):
        found = shared_out(many, Bounds(math.inf, MB, 4), Pushes(behind_s=1), found, NOW)
    assert 0 < found.rates["a"] < MB / 15
    for _ in range(10):
        found = shared_out(many, Bounds(math.inf, MB, 4), Pushes(), found, NOW)
    assert found.rates == {"a": MB}


def test_a_class_that_is_behind_for_another_reason_does_not_hold_downloads_up() -> None:
    """A slow receiver may be behind for hours: after half a minute the downloads go on, and are cut now and then."""
    found, rates = Shares(), []
    for _ in range(1000):
        found = shared_out([Download("a", 10**9)], Bounds(math.inf, MB, 4), Pushes(behind_s=1), found, NOW)
        rates.append(found.rates["a"])
    assert rates[:15] == [0.0] * 15
    assert sum(rates) > 0.8 * 1000 * MB
    assert 0.0 in rates[500:]


def test_what_must_begin_first_is_finished_and_the_others_wait() -> None:
    """A large recording of tomorrow may have to begin before a small one of tonight."""
    some = [Download("next week", 10**9, NOW + 7e5), Download("tonight", 10**8, NOW + 900)]
    some.append(Download("large", 9 * 10**9, NOW + 3600))
    found = shared_out(some, Bounds((2 + decide.PUSHES) * MB, 1.5 * MB, 4), Pushes(MB), Shares(), NOW)
    assert found.rates == {"large": 1.5 * MB, "tonight": 0.5 * MB, "next week": 0.0}
    assert found.waiting == 1


def test_no_more_than_max_downloads_run_and_without_bounds_nothing_is_limited() -> None:
    some = [Download(str(number), 10**9, NOW - number) for number in range(5)]
    found = shared_out(some, Bounds(math.inf, MB, 3), Pushes(), Shares(), NOW)
    assert [one.stem for one in some if found.rates[one.stem]] == ["2", "3", "4"]
    found = shared_out([Download("a", 9), Download("b", 9)], Bounds(math.inf, math.inf, 4), Pushes(1e9), Shares(), NOW)
    assert found.rates == {"a": math.inf, "b": math.inf}


def test_the_need_of_pushes_is_the_most_that_is_sent_at_once_in_ten_minutes() -> None:
    def class_(start: float, until: float) -> Needed:
        return Needed("r", 1_000_000, NOW + until, NOW + start, duration_s=1.0)

    one_after_the_other = [class_(-60, 60), class_(60, 120)]
    assert decide.push_bytes(one_after_the_other, NOW) == MB
    far = [class_(601, 900)] * 3
    assert decide.push_bytes([*one_after_the_other, class_(100, 700), *far, class_(-90, -1)], NOW) == 2 * MB
    assert decide.push_bytes([], NOW) == 0


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 100))
@example(100.0, 96.0, 20.0)
def test_a_running_download_is_started_anew_at_once_to_be_slower_and_seldom_to_be_quicker(
    rate: float, other: float, after_s: float
) -> None:
    if decide.takes(rate, other, after_s):
        assert other < rate * 2 / 3 or after_s >= 20
        assert other < rate * 0.95 or other > rate * 4 / 3 * (1 - 1e-9)
    else:
        assert other >= rate * (2 / 3 if after_s < 20 else 0.95) * (1 - 1e-9)


NIGHT = Windows.parsed("00:00-06:30=20m, 06:30-20:00=1000k", "UTC")
MIDNIGHT = NOW - NOW % 86_400
GB, HOUR_S = 10**9, 3600.0


def turn(size_bytes: int, deadline: float, at: float, each_bytes: float = 10 * MB) -> Turn:
    bound = Bounds(math.inf, each_bytes, 4, NIGHT, 2 * HOUR_S)
    return turns([Download("a", size_bytes, deadline)], bound, (), at)["a"]


TURNS: dict[tuple[int, float, float], Turn] = {  # by its size, the hour, and that of its class
    (GB, 3, 48): Turn.NOW,
    (GB, 21, 48): Turn.LATER,
    (300 * GB, 21, 34): Turn.URGENT,  # 10 MB/s take more than 8 hours, and 23:00 to 08:00 has 2 h of no window
    (GB, 21, 26.0): Turn.URGENT,  # at midnight, when the window opens, it should be there
    (GB, 21, 26.1): Turn.LATER,
    (GB, 21, 22): Turn.URGENT,
    (GB, 10, 24): Turn.NOW,
    (50 * GB, 10, 24): Turn.URGENT,  # more than the window leaves of the day
    (50 * GB, 10, 48): Turn.NOW,  # the night has room for the rest
    (GB, 10, 11): Turn.URGENT,
}


def test_what_would_be_late_by_the_windows_waits_for_none() -> None:
    assert {case: turn(case[0], *(MIDNIGHT + at * HOUR_S for at in (case[2], case[1]))) for case in TURNS} == TURNS


def test_what_no_class_waits_for_keeps_to_the_windows_and_what_was_urgent_is_finished() -> None:
    """Else it would stop and go on again and again."""
    assert turn(10**13, math.inf, MIDNIGHT + 21 * HOUR_S) is Turn.LATER
    at, bound = MIDNIGHT + 21 * HOUR_S, Bounds(math.inf, 10 * MB, 4, NIGHT)
    rest = [Download("a", GB, MIDNIGHT + 48 * HOUR_S, came_bytes=GB // 2)]
    assert turns(rest, bound, {"a"}, at) == {"a": Turn.URGENT}
    assert turns(rest, bound, (), at) == {"a": Turn.LATER}


def test_who_waits_behind_another_counts_on_all_that_run_at_once() -> None:
    opens, bound = MIDNIGHT + 24 * HOUR_S, Bounds(math.inf, 10 * MB, 4, NIGHT, 2 * HOUR_S)
    some = [Download("first", 100 * GB, opens + 17_200), Download("small", 10 * GB, opens + 15_200)]
    assert turns(some, bound, (), opens - 3 * HOUR_S) == {"first": Turn.LATER, "small": Turn.LATER}
    alone = turns(some, replace(bound, number=1), (), opens - 3 * HOUR_S)
    assert alone == {"first": Turn.LATER, "small": Turn.URGENT}


def test_in_a_window_all_together_keep_to_its_rate_but_for_what_is_urgent() -> None:
    at = MIDNIGHT + 10 * HOUR_S
    some = [Download("urgent", GB, at + HOUR_S / 4), *(Download(f"other {n}", GB, at + 48 * HOUR_S) for n in range(3))]
    found = shared_out(some, Bounds(math.inf, 0.6 * MB, 4, NIGHT), Pushes(), Shares(), at)
    assert found.rates == {"urgent": 0.6 * MB, "other 0": 1_024_000 - 0.6 * MB, "other 1": 0, "other 2": 0}
    assert found.urgent == {"urgent"}
    assert found.waiting == 2
    late = shared_out(some, Bounds(math.inf, 0.6 * MB, 4, NIGHT), Pushes(), found, MIDNIGHT + 21 * HOUR_S)
    assert late.rates == {"urgent": 0.6 * MB, "other 0": 0, "other 1": 0, "other 2": 0}
    assert late.later == {"other 0", "other 1", "other 2"}
    assert in_words(late) == "1 download, at most 0.6 MB a second; 3 downloads wait for their window"


@given(downloads, st.lists(st.floats(0, 1), min_size=12, max_size=12), bounds)
def test_what_has_come_changes_no_order(some: list[Download], parts: list[float], bound: Bounds) -> None:
    """Of two that are alike, each would else be broken off by the other, again and again."""
    later = [replace(one, came_bytes=int(one.size_bytes * part)) for one, part in zip(some, parts, strict=False)]
    assert [one.stem for one in decide.in_order(later, bound)] == [one.stem for one in decide.in_order(some, bound)]


windows = st.sampled_from(["00:00-06:30=20m", "22:00-04:00=2m, 12:00-13:00=500k", "05:00-05:30", ""])
wanted = st.lists(st.tuples(st.integers(10**6, 3 * 10**10), st.floats(3 * HOUR_S, 80 * HOUR_S)), min_size=1, max_size=8)
STEP_S = 300.0


@given(wanted, windows, st.floats(0, 24), st.sets(st.integers(0, 999), max_size=5), st.booleans())
def test_what_is_in_time_by_the_windows_is_there_before_its_class_whatever_happens_meanwhile(
    asked: list[tuple[int, float]], text: str, hour: float, restarts: set[int], crawls: bool
) -> None:
    """The windows close in downloads, an origin crawls, the process is restarted, and forgets what was urgent."""
    begin = MIDNIGHT + hour * HOUR_S
    bound = Bounds(math.inf, 10 * MB, 4, Windows.parsed(text, "Europe/Berlin"), 2 * HOUR_S)
    some = {f"{n}": Download(f"{n}", size, begin + 2 * HOUR_S + in_s) for n, (size, in_s) in enumerate(asked)}
    told = turns(some.values(), bound, (), begin)
    shares, came = Shares(), dict.fromkeys(some, 0.0)
    for number in range(1000):
        at = begin + number * STEP_S
        left = [replace(one, came_bytes=int(came[stem])) for stem, one in some.items() if came[stem] < one.size_bytes]
        for one in left:
            if told[one.stem] is not Turn.URGENT and not (crawls and one.stem == "0"):
                assert at <= one.deadline, "it was in time, and is late"
        if not left:
            return
        shares = shared_out(left, bound, Pushes(), Shares() if number in restarts else shares, at)
        patient = sum(rate for stem, rate in shares.rates.items() if stem not in shares.urgent)
        assert patient <= bound.windows.rate_at(at)
        for stem, rate in shares.rates.items():
            came[stem] += rate * STEP_S * (0.01 if crawls and stem == "0" else 1)
    assert crawls


def test_people_read_how_many_download_and_how_many_wait() -> None:
    assert in_words(Shares()) == ""
    assert in_words(Shares({"a": 2 * MB})) == "1 download, at most 2.0 MB a second"
    assert in_words(Shares({"a": MB, "b": 0.0})) == "2 downloads, at most 1.0 MB a second; 1 waits for what is pushed"
    assert in_words(Shares({"a": math.inf, "b": math.inf})) == "2 downloads, without a limit"
