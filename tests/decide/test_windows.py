"""When downloads may run, at which rate, and when so many bytes will have come."""

import math
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lectern.windows import ALWAYS, DAY_S, Windows, time_zone

BERLIN = "Europe/Berlin"
NIGHT = Windows.parsed("00:00-06:30=20m, 06:30-20:00=1000k, 22:30-24:00", BERLIN)
MONTH_S = 30 * DAY_S

hours = st.lists(st.integers(0, 48), min_size=2, max_size=8, unique=True).map(sorted)
rates = st.sampled_from([1e4, 1e6, 2e7])
zones = st.sampled_from(["", "UTC", BERLIN, "Australia/Lord_Howe", "Asia/Shanghai", "America/St_Johns"])
windows = st.builds(
    lambda edges, rate, zone: Windows(
        tuple((edges[n] * 1800, edges[n + 1] * 1800, rate) for n in range(0, len(edges) - 1, 2)), time_zone(zone)
    ),
    hours,
    rates,
    zones,
)
times = st.floats(1_700_000_000, 1_800_000_000)
amounts = st.floats(0, 1e9)
SLACK_BYTES = 100.0
"""Bytes that come in the microseconds to which times are exact."""


def at(text: str, zone: str = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


RATES = {
    "2026-11-29 00:00": 20 * 1024**2,
    "2026-11-29 06:29:59": 20 * 1024**2,
    "2026-11-29 06:30": 1000 * 1024,
    "2026-11-29 20:00": 0,
    "2026-11-29 22:30": math.inf,
    "2026-11-29 23:59:59": math.inf,
    "2026-07-01 06:29:59": 20 * 1024**2,
}


def test_the_clock_of_the_time_zone_decides() -> None:
    assert {when: NIGHT.rate_at(at(when)) for when in RATES} == RATES


def test_without_windows_downloads_run_always_and_one_may_go_on_after_midnight() -> None:
    assert Windows.parsed("") == ALWAYS
    assert ALWAYS.rate_at(0) == math.inf
    assert ALWAYS.ends(1000, 5, 100) == 15
    assert Windows.parsed("22:00-06:00=1m", "UTC").spans == ((0, 21600, 1024**2), (79200, 86400, 1024**2))
    assert Windows.parsed("22:00-00:00").spans == Windows.parsed("22:00-24:00").spans


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("night", "'night'"),
        ("00:00-06:30=fast", "'00:00-06:30=fast'"),
        ("6:30-7:00", "'6:30-7:00'"),
        ("00:00-24:30", "00:00 to 24:00"),
        ("00:60-02:00", "00:00 to 24:00"),
        ("24:00-02:00", "00:00 to 24:00"),
        ("02:00-02:00", "00:00 to 24:00"),
        ("00:00-06:30=0", "leave the rate away"),
        ("00:00-06:30=1m, 06:00-07:00=2m", "06:00 to 06:30"),
        ("22:00-02:00, 01:00-01:30", "01:00 to 01:30"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_is_wrong(text: str, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        Windows.parsed(text)


def test_a_time_zone_that_the_host_does_not_know_is_refused() -> None:
    for name in ("Mars/Olympus", "../etc/passwd", "Europe"):
        with pytest.raises(ValueError, match="no such time zone"):
            Windows.parsed("", name)


def test_an_hour_that_is_left_out_is_no_window_and_one_that_comes_twice_is_twice_as_long() -> None:
    """On 2026-03-29 the clocks of Berlin go from 02:00 to 03:00, on 2026-10-25 from 03:00 to 02:00."""
    two_to_three = Windows.parsed("02:00-03:00=1000", BERLIN)
    spring, autumn = at("2026-03-29 00:00"), at("2026-10-25 00:00")
    assert two_to_three.ends(1, spring) == pytest.approx(at("2026-03-30 02:00") + 0.001)
    assert two_to_three.ends(7_200_000, autumn) == at("2026-10-25 03:00")


@given(windows, amounts, times, rates)
def test_the_bytes_that_come_by_the_forecast_are_those_that_were_asked_for(
    found: Windows, left_bytes: float, begin: float, each: float
) -> None:
    ends = found.ends(left_bytes, begin, each)
    assume(ends < math.inf)
    came = sum(min(rate, each) * (min(until, ends) - at) for at, until, rate in found.ahead(begin) if at < ends)
    assert came == pytest.approx(left_bytes, abs=SLACK_BYTES)


@given(windows, amounts, times, st.floats(0, MONTH_S), rates)
def test_nothing_is_there_sooner_because_it_is_begun_later(
    found: Windows, left_bytes: float, begin: float, later_s: float, each: float
) -> None:
    assert found.ends(left_bytes, begin + later_s, each) >= found.ends(left_bytes, begin, each) - 0.01


@given(windows, times)
def test_each_window_ahead_has_one_rate_and_the_next_one_another(found: Windows, begin: float) -> None:
    pieces = [piece for piece, _ in zip(found.ahead(begin), range(20), strict=False)]
    for (_, until, rate), (begins, _, then) in pairwise(pieces):
        assert until == begins
        assert rate != then
    for begins, until, rate in pieces:
        assert begins < until
        if until - begins < 0.001:
            continue  # its parts are the next float
        assert {found.rate_at(begins + part * (until - begins)) for part in (0, 0.3, 0.6, 0.999)} == {rate}
