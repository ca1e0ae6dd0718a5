"""Downloads keep to what the governor lets them have of the network, and what comes is whole all the same."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select
from sqlalchemy.engine.url import make_url

from flows.host import StreamerHost
from flows.streamer import bandwidth
from flows.streamer.bandwidth import Governor
from flows.streamer.downloads import DownloadQueue
from lectern.allowlist import Allowlist
from lectern.db import cache
from lectern.db.engine import bind_list, in_list
from lectern.decide import bandwidth as decide
from lectern.decide.bandwidth import Shares
from lectern.model.tables.teacher import journal
from lectern.model.views import Network
from lectern.states import AiringState
from lectern.storage import cache_dir, origin
from lectern.timing import NAMES, Rate, Throttle
from tests import rows
from tests.effects.conftest import Origin
from tests.stage import running_with
from tests.waiting import async_wait_until, cancelled
from town.programs import gather

BODY = bytes(range(256)) * 4096
STEM, PATH = "6666", "/6666.flv"


@pytest.fixture
def host(streamer: StreamerHost, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StreamerHost:
    """A streamer that downloads a recording of a megabyte from the origin."""
    monkeypatch.setattr(bandwidth, "LOOK_S", 0.02)
    changes = {"wget_path": gather(tmp_path / "bin").wget, "download_rate": "0"}
    streamer.settings = streamer.settings.model_copy(update=changes)
    origin.files[PATH] = BODY
    return streamer


async def download(host: StreamerHost, its: Origin) -> bool:
    remote = await origin.look(its.url + PATH, allowed=Allowlist.listed(urlsplit(its.url).netloc), timeout_s=5)
    return await bandwidth.download(host, STEM, len(BODY), remote, lambda _: None)


def part(host: StreamerHost) -> Path:
    return cache_dir.part_path(host.settings.video_root, STEM)


def ranges(its: Origin) -> list[int]:
    """From where each download went on."""
    return [int(asked[2].removeprefix("bytes=").rstrip("-") or 0) for asked in its.asked if asked[0] == "GET"]


def let(host: StreamerHost, rate: float) -> None:
    """As the governor does, at each of its looks."""
    host.shares, host.shared_at = Shares({STEM: rate}), time.monotonic()


async def test_a_download_under_way_goes_on_at_another_rate_where_it_was(
    host: StreamerHost, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lower one at once; then it waits; then a higher one. Nothing that came is fetched twice, or lost."""
    monkeypatch.setattr(decide, "RISE_S", 0.0)
    let(host, 50_000)
    downloading = asyncio.create_task(download(host, origin))
    await async_wait_until(lambda: cache_dir.size_bytes(part(host)) > 0, description="it has begun")
    let(host, 25_000)
    await asyncio.sleep(0.1)
    let(host, 0)
    await async_wait_until(lambda: running_with(str(part(host))) == [], description="it has stopped")
    came = cache_dir.size_bytes(part(host))
    await asyncio.sleep(0.5)  # nothing comes
    assert cache_dir.size_bytes(part(host)) == came < len(BODY)
    let(host, math.inf)
    assert await downloading, "it was begun anew"
    assert part(host).read_bytes() == BODY
    assert ranges(origin) == sorted(ranges(origin))
    assert ranges(origin)[-1] > 0


async def test_a_download_has_the_time_of_its_settings(host: StreamerHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second is the least that wget is given."""
    given: list[float] = []

    async def fetch(_wget: str, _remote: object, _part: Path, limits: origin.WgetLimits, _on: object) -> None:
        given.append(limits.timeout_s)

    monkeypatch.setattr(origin, "download", fetch)
    let(host, 50_000)
    for timeout_s in (40.0, 0.0):
        host.settings = host.settings.model_copy(update={"download_timeout_s": timeout_s})
        await bandwidth.download(host, STEM, 1, cast("Any", None), lambda _: None)
    assert given == [40.0, 1.0]


async def test_a_cancelled_download_leaves_no_program_behind(host: StreamerHost, origin: Origin) -> None:
    """As at a restart; the next one goes on where it was, without a limit that was taken away while it waited."""
    let(host, 50_000)
    downloading = asyncio.create_task(download(host, origin))
    await async_wait_until(lambda: cache_dir.size_bytes(part(host)) > 0, description="it has begun")
    await cancelled(downloading)
    assert running_with(str(part(host))) == []
    let(host, 0)
    host.unshared.clear()
    host.settings = host.settings.model_copy(update={"download_rate": "200k"})
    downloading = asyncio.create_task(download(host, origin))
    await async_wait_until(host.unshared.is_set, description="the next one waits")
    host.settings = host.settings.model_copy(update={"download_rate": "0"})
    let(host, math.inf)
    assert not await downloading, "it is begun once"
    assert part(host).read_bytes() == BODY
    assert ranges(origin)[-1] > 0


@pytest.fixture
def governed(host: StreamerHost) -> Callable[[float], None]:
    """A streamer with a download that no class waits for; the function says how far a class on air is behind."""
    with host.engine.begin() as connection:
        cache.make_sums(connection, host.settings.video_root)
        rows.reserve(connection, host.settings.video_root, STEM, len(BODY), "http://h/6666.flv", 0.0)
    host.in_progress |= {STEM, "sweep"}
    host.settings = host.settings.model_copy(update={"download_rate": "1000k"})
    says: dict[str, Any] = {"classes": [{"behind_s": 0.0}]}

    async def ask(*_: object, **__: object) -> dict[str, Any]:
        return says

    host.playout = cast("Any", SimpleNamespace(ask=ask))
    return lambda behind_s: says.update(classes=[{"behind_s": 0.0}, {"behind_s": behind_s}])


async def test_what_may_wait_waits_while_one_is_behind(host: StreamerHost, governed: Callable[[float], None]) -> None:
    """And what the host may take is the bound. A verdict that is old is none: each keeps to its own limit then."""
    governor, rates = Governor(host), []
    for behind_s in (0.0, 0.4, 0.0):
        governed(behind_s)
        await governor.step()
        rates.append(bandwidth.rate(host, STEM))
    assert rates == [1_024_000.0, 0.0, pytest.approx(0.35 * 1_024_000)]
    for _ in range(20):
        await governor.step(looks=False)
    assert host.shares.share == pytest.approx(0.35), "what comes between two looks makes no rise quicker"
    host.settings, host.shares = host.settings.model_copy(update={"host_rate": "100k"}), Shares()
    await governor.step()
    assert bandwidth.rate(host, STEM) == 102_400.0
    host.shared_at -= 31
    assert bandwidth.rate(host, STEM) == 1_024_000.0, "it waits for no governor that hangs"
    host.in_progress.clear()
    await governor.step()
    assert host.shares.rates == {}, "there is nothing to share out"


async def test_the_log_has_a_line_when_downloads_begin_to_wait_and_when_they_go_on(
    host: StreamerHost, governed: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lectern")
    governor, lines = Governor(host), []
    for behind_s in (0.0, 0.0, 0.4, 0.4, 0.0):
        governed(behind_s)
        await governor.step()
        lines.append(sum("downloads wait" in one for one in caplog.messages))
    assert lines == [0, 0, 1, 1, 2]
    first, _ = (one for one in caplog.messages if "downloads wait" in one)
    assert first == ("bandwidth: 1 of 1 downloads wait, the others have 25 % of their share; a class is 0.4 s behind")


async def test_the_heartbeat_tells_needs_and_allowances(host: StreamerHost, governed: Callable[[float], None]) -> None:
    """As numbers, for a picture of it; also while nothing is downloaded."""
    now = float(int(time.time()))
    with host.engine.begin() as connection:
        rows.reserve(connection, host.settings.video_root, "7777", 1_250_000, "http://h/7777.flv", now)
        rows.add(connection, rows.prepare("c-1", 7777, now - 5, 10), AiringState.WAITING, "7777", now)
    governor = Governor(host)
    await governor.step()
    assert host.network == Network(push=125_000, download=1_024_000, bound=None)
    host.in_progress.clear()
    host.settings = host.settings.model_copy(update={"host_rate": "1m"})
    await governor.step()
    assert host.network == Network(push=125_000, download=0, bound=1_048_576)


async def test_what_a_class_needs_is_told_as_it_comes_into_sight_also_between_two_reads_of_the_rows(
    host: StreamerHost, governed: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, needs = float(int(time.time())), list[float]()
    with host.engine.begin() as connection:
        rows.reserve(connection, host.settings.video_root, "7777", 1_250_000, "http://h/7777.flv", now)
        coming = rows.prepare("c-1", 7777, now + decide.AHEAD_S + 10, 10)
        rows.add(connection, coming, AiringState.WAITING, "7777", now)
    governor = Governor(host)
    for later_s in (0, 20):
        clock = SimpleNamespace(time=lambda at=now + later_s: at, monotonic=lambda: 1000.0)
        monkeypatch.setattr(bandwidth, "time", clock)
        await governor.step()
        needs.append(host.network.push)
    assert needs == [0, 125_000]


async def test_what_came_of_a_download_before_a_restart_or_is_being_checked_is_not_to_come_again(
    host: StreamerHost, governed: Callable[[float], None]
) -> None:
    """Else it would count as late, and take from the others what it needs no more."""
    part(host).parent.mkdir(parents=True)
    part(host).write_bytes(BODY[1000:])
    (one,) = await bandwidth.under_way(host)
    assert (one.left_bytes, one.begun) == (1000, True)


async def test_a_download_waits_for_its_windows_by_the_clock_of_the_host(
    host: StreamerHost, governed: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by one that is set back; a new process finds the same."""
    governed(0)
    windows = {"download_windows": "10:00-11:00", "timezone": "UTC", "download_rate": "200k"}
    host.settings = host.settings.model_copy(update=windows)
    governor, rates = Governor(host), []
    for hour in (9, 10.25, 11.5, 10.5, 9.5, 24 + 10.25):
        at = 20_000 * 86_400 + hour * 3600
        monkeypatch.setattr(bandwidth, "time", SimpleNamespace(time=lambda at=at: at, monotonic=time.monotonic))
        for one in (governor, Governor(host)):
            await one.step()
            rates.append(bandwidth.rate(host, STEM))
    assert rates == [0.0, 0.0, *[204_800.0] * 2, 0.0, 0.0, *[204_800.0] * 2, 0.0, 0.0, *[204_800.0] * 2]


async def test_the_queue_begins_what_would_be_late_although_all_places_wait_for_a_window(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, begun = time.time(), list[str]()

    async def begin(_: DownloadQueue, stem: str, __: str | None) -> None:
        begun.append(stem)

    monkeypatch.setattr(DownloadQueue, "_take_up", begin)
    hour = (time.gmtime(now).tm_hour + 12) % 24
    windows = {"download_windows": f"{hour:02}:00-{hour:02}:30", "timezone": "UTC", "max_downloads": 2}
    streamer.settings = streamer.settings.model_copy(update=windows)
    with streamer.engine.begin() as connection:
        cache.make_sums(connection, streamer.settings.video_root)
        for record, starts_in_s in enumerate((100_000, 90_000, 95_000, 3600, 6000)):
            stem, url = str(record), f"http://h/{record}.flv"
            rows.reserve(connection, streamer.settings.video_root, stem, 1000, url, now)
            wanted = rows.prepare(f"c-{record}", record, now + starts_in_s)
            rows.add(connection, wanted, AiringState.WAITING, stem, now)
    streamer.in_progress |= {"0", "1"}
    await DownloadQueue(streamer).step()
    assert begun == ["3", "4"]
    begun.clear()
    streamer.settings = streamer.settings.model_copy(update={"download_windows": "", "max_downloads": 4})
    await DownloadQueue(streamer).step()
    assert begun == ["3", "4", "2"], "as many as there are places, first what must begin first"


# A token bucket lets a burst through, then so many a second; a throttle lets one through in so many seconds.


def test_a_burst_goes_through_and_the_next_one_is_told_how_long_to_wait() -> None:
    clock = SimpleNamespace(now=100.0)
    rate = Rate(3, 10, lambda: clock.now)
    for _ in range(2):
        assert [rate.take() for _ in range(3)] == [0, 0, 0]
        wait_s = rate.take()
        assert 0 < wait_s <= 0.1
        clock.now += wait_s + 1e-6
        assert (rate.take(), rate.take() > 0) == (0, True)
        clock.now += 1000.0
    assert rate.take("somebody else") == 0


def test_a_throttle_lets_each_name_through_once_in_its_time_and_forgets_it() -> None:
    """An address that tries tokens can have any number of names."""
    clock = SimpleNamespace(now=100.0)
    throttle = Throttle(lambda: clock.now)
    assert [throttle.take(one, 10) for one in ("a", "a", "b")] == [True, False, True]
    clock.now += 10
    assert throttle.due("a", 10)
    assert [throttle.take("a", 10), throttle.take("a", 10)] == [True, False]
    throttle.forget("a")
    assert throttle.take("a", 10)
    rate, throttle = Rate(1, 1, lambda: clock.now), Throttle(lambda: clock.now)
    for number in range(NAMES + 1):
        assert rate.take(str(number)) == 0
        assert throttle.take(str(number), 10)
    assert rate.take("0") == 0
    assert rate.take(str(NAMES)) > 0
    assert throttle.take("0", 10)


@pytest.mark.parametrize(
    ("url", "of_numbers", "of_texts"),
    [
        ("postgresql+psycopg://", "CAST(value AS BIGINT) FROM json_array", "CAST(value AS TEXT) FROM json_array"),
        ("sqlite://", "value FROM json_each", "value FROM json_each"),
    ],
)
def test_numbers_are_compared_as_numbers_and_texts_as_texts(url: str, of_numbers: str, of_texts: str) -> None:
    """PostgreSQL compares no number with a text. A list of any length is one parameter."""
    dialect, its = make_url(url).get_dialect()(), journal.inbox.c
    for column, said in ((its.id, of_numbers), (its.command, of_texts)):
        assert said in str(select(its.id).where(in_list(column)).compile(dialect=dialect))
    assert bind_list(range(3)) == {"among": "[0, 1, 2]"}
    assert bind_list(['a"b'], "names") == {"names": '["a\\"b"]'}
