"""Ready is a host that takes messages, handles them, and may air classes; any other says in words why it is not."""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from starlette.applications import Starlette

from flows.failures import FatalError
from flows.host import Host, StreamerHost, TeacherHost
from flows.playout_link import boot_now
from flows.resident import http
from lectern import health as healths
from lectern.db import inbox, metrics
from lectern.db.inbox import ReceivedMessage
from lectern.errors import Misuse
from lectern.model.tables.streamer import journal
from lectern.settings import StreamerSettings
from lectern.storage import disk
from tests.effects.test_origin import answering
from tests.faults import hosts
from tests.rows import commit
from tests.waiting import async_wait_until


@pytest.fixture
def host(host: Host[Any]) -> Host[Any]:
    if isinstance(host, StreamerHost):
        host.playout.until = boot_now() + 60
        host.playout.is_there()
    return host


@pytest.fixture
def health(host: Host[Any], monkeypatch: pytest.MonkeyPatch) -> http.HealthReport:
    monkeypatch.setattr(http, "FRESH_S", 0.0)
    found = http.HealthReport(host.settings)
    found.begins(host)
    return found


def said(health: http.HealthReport) -> tuple[int, list[str]]:
    answer = asyncio.run(health.answer(cast("Any", None)))
    fields = json.loads(bytes(answer.body))
    assert fields["ready"] is (answer.status_code == 200)
    return answer.status_code, fields["wrong"]


def test_a_host_at_work_is_ready_and_one_that_begins_or_ends_says_why_it_is_not(health: http.HealthReport) -> None:
    assert said(http.HealthReport(health._settings)) == (503, ["it begins"])
    assert said(health) == (200, [])
    health.ends(FatalError("another process serves teacher now"))
    assert said(health) == (503, ["it ends: another process serves teacher now"])


def test_a_loop_that_stands_still_for_a_minute_or_only_fails_makes_its_host_not_ready(
    host: Host[Any], health: http.HealthReport
) -> None:
    """One that fails comes round each time it is tried, and does nothing.

    With ten minutes between two sweeps, a host that was deaf looked well for half an hour.
    """
    host.settings = host.settings.model_copy(update={"sweep_interval_s": 600.0})
    host.watchdog._at["streams"] = time.monotonic() - http.LATE_S - 1
    host.watchdog.note("channels")
    host.watchdog.fails("channels", since=-1000.0)
    status, wrong = said(health)
    assert (status, [one.partition(" since ")[0] for one in wrong]) == (
        503,
        ["streams: stands still", "channels: fails"],
    )
    del host.watchdog._at["streams"]
    host.watchdog.works("channels")
    assert said(health) == (200, [])


def test_a_message_that_waits_too_long_makes_its_host_not_ready(host: Host[Any], health: http.HealthReport) -> None:
    """A deaf process with a heartbeat and a lock looked well for ever."""
    for age_s, status in ((60, 200), (600, 503)):
        commit(host.engine, inbox.keep, [ReceivedMessage("test", "order", "{}")], hosts.now() - age_s)
        assert said(health)[0] == status


@pytest.mark.parametrize("host", ["streamer"], indirect=True)
@pytest.mark.parametrize("is_new", [True, False])
def test_a_streamer_without_a_lease_is_ready_only_while_it_is_new(
    host: StreamerHost, health: http.HealthReport, *, is_new: bool
) -> None:
    """A rollout asks its health before there is a teacher that could grant one; later it has lost its lease."""
    host.playout.until = 0 if is_new else boot_now() + 60
    assert said(health)[0] == 200
    host.playout.until = 0
    health._new_until -= 1000 * is_new
    assert said(health)[0] == 503


@pytest.mark.parametrize("host", ["streamer"], indirect=True)
def test_a_streamer_whose_playout_is_not_there_is_not_ready(
    host: StreamerHost, health: http.HealthReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade of it is not noticed; one that has just begun, as in a rollout, has a while until it must be there."""
    host.playout.is_away("no playout answers there")
    assert said(health)[0] == 200, "it was there a moment ago"
    monkeypatch.setattr(http, "AWAY_S", -1.0)
    assert said(health)[0] == 200, "the process is new"
    health._new_until -= 1000
    status, wrong = said(health)
    assert status == 503
    assert wrong == ["playout: is not there, so nothing is aired: no playout answers there"]


def test_metrics_say_whether_servers_answer_and_how_long_a_streamer_may_push(host: Host[Any]) -> None:
    host.prefect_away = True
    text = bytes(asyncio.run(http.exposition(host, cast("Any", None))).body).decode()
    assert 'lectern_server_answers{server="redis"} 1.0' in text
    assert 'lectern_server_answers{server="prefect"} 0.0' in text
    left_s = re.findall(r"^lectern_lease_left_seconds (\S+)$", text, re.MULTILINE)
    assert [50 < float(one) <= 60 for one in left_s] == [True] * isinstance(host.settings, StreamerSettings)


@pytest.mark.parametrize("host", ["teacher"], indirect=True)
@pytest.mark.parametrize("is_away", [False, True])
def test_without_redis_metrics_call_no_streamer_lost(host: TeacherHost, *, is_away: bool) -> None:
    """Their heartbeats grow old with it, whatever they do."""
    host.beats, host.redis_away = {"streamer1": {"at": time.time() - 3600}}, is_away
    text = bytes(asyncio.run(http.exposition(host, cast("Any", None))).body).decode()
    assert ('lectern_streamers{state="lost"} 1.0' in text) != is_away
    assert ("lectern_streamers{" in text) != is_away


async def test_a_backup_folder_that_hangs_holds_up_neither_metrics_nor_what_is_read_for_a_booking(
    host: Host[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one on another machine that is away: after four scrapes, no thread for transactions was left."""
    is_back = threading.Event()
    monkeypatch.setattr(disk, "backup_ages_s", lambda *_: is_back.wait(60))
    monkeypatch.setattr(http, "LOOK_S", 0.05)
    try:
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*(http.exposition(host, cast("Any", None)) for _ in range(5)))
            assert await host.read_tx(inbox.oldest) is None
    finally:
        is_back.set()
    assert {b'lectern_backup_age_seconds{where="here"} +Inf' in bytes(one.body) for one in answers} == {True}


async def test_metrics_that_cannot_be_counted_are_refused_in_the_words_of_the_health_check(host: Host[Any]) -> None:
    """Each scrape would else write a traceback into the log, every few seconds, for as long as the disk is broken."""
    commit(host.engine, journal.inbox.drop)
    setting = "health_bind" if isinstance(host, StreamerHost) else "api_bind"
    host.settings = host.settings.model_copy(update={setting: "127.0.0.1:0"})
    health = http.HealthReport(host.settings)
    health.begins(host)
    async with served(host, health), httpx.AsyncClient(base_url=f"http://{host.address}") as client:
        refused, report = await client.get("/metrics"), (await client.get("/health")).json()
    assert (refused.status_code, [refused.text]) == (503, report["wrong"])
    assert refused.text.startswith("database: cannot be read: no such table")


async def test_metrics_of_a_database_that_hangs_are_refused_in_time(
    host: Host[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scrapes that nobody ended gathered until the process answered nothing any more, its health neither."""
    is_back = threading.Event()
    monkeypatch.setattr(metrics, "exposition", lambda *_: is_back.wait(60))
    monkeypatch.setattr(http, "SCRAPE_S", 0.05)
    try:
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*(http.exposition(host, cast("Any", None)) for _ in range(5)))
    finally:
        is_back.set()
    assert {(one.status_code, bytes(one.body)) for one in answers} == {
        (503, b"database: cannot be read: no answer in time")
    }


def served(host: Host[Any], health: http.HealthReport) -> AbstractAsyncContextManager[None]:
    return http.served(host, health, Starlette(), http.Reload(cast("StreamerHost", host)))


@asynccontextmanager
async def listening_everywhere(folder: Path, **more: str) -> AsyncIterator[Host[Any]]:
    """A host that answers at all of its addresses."""
    settings = StreamerSettings.load(
        _env_file=None, streamer_name="s", video_root=folder, health_bind="0.0.0.0:0", **more
    )
    host = cast("Host[Any]", SimpleNamespace(settings=settings, address=""))
    async with served(host, http.HealthReport(settings)):
        yield host


@pytest.mark.parametrize(
    "redis_url",
    [
        "redis://127.0.0.2:6379/0",
        "redis+sentinel://127.0.0.2:26379,127.0.0.3:26379/mymaster/0",
        "rediss+sentinel://user:p%40ss@127.0.0.2,127.0.0.3,127.0.0.4/mymaster?sentinel_password=x",
        "redis+sentinel://there-is-no-such-host.invalid:26379,127.0.0.3:26379/mymaster/0",
    ],
)
async def test_a_host_that_listens_everywhere_is_reached_where_it_reaches_redis(redis_url: str, tmp_path: Path) -> None:
    """Or one of the sentinels: at 0.0.0.0 each streamer reaches itself, and no other vouches for its classes."""
    async with listening_everywhere(tmp_path, redis_url=redis_url) as host:
        assert re.fullmatch(r"127\.0\.0\.1:[1-9]\d+", host.address)


async def test_a_host_is_reached_at_an_address_of_the_family_at_which_it_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis has an address of each: nobody who asks at that of IPv6 reaches who listens at 0.0.0.0."""
    both = [(socket.AF_INET6, ("::1", 6379, 0, 0)), (socket.AF_INET, ("127.0.0.1", 6379))]

    def found(_host: str, _port: int, family: int = 0, type: int = 0) -> list[tuple[Any, ...]]:
        return [(kind, type, 0, "", where) for kind, where in both if family in {0, kind}]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    async with listening_everywhere(tmp_path) as host:
        assert host.address.startswith("127.0.0.1:")


async def test_a_host_that_began_before_its_network_is_reached_once_there_is_a_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a power cut, when its switch comes up last. Else no other streamer hears it, until it is restarted."""
    ways = iter((None, None, "10.0.0.7"))
    monkeypatch.setattr(healths, "own_address", lambda *_: next(ways))
    monkeypatch.setattr(http, "ADDRESS_AGAIN_S", 0.01)
    async with listening_everywhere(tmp_path) as host:
        await async_wait_until(
            lambda: host.address.startswith("10.0.0.7:"), timeout_s=10, description="it knows its address"
        )


async def test_a_host_begins_while_no_name_server_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stood still in its look for the server of Redis, and the lease of a streamer that began again ran out."""
    answers = threading.Event()
    monkeypatch.setattr(healths, "own_address", lambda *_: "10.0.0.7" if answers.wait(20) else None)
    monkeypatch.setattr(http, "ADDRESS_S", 0.01)
    try:
        async with asyncio.timeout(10), listening_everywhere(tmp_path) as host:
            answers.set()
            await async_wait_until(
                lambda: host.address.startswith("10.0.0.7:"), timeout_s=10, description="it knows its address"
            )
    finally:
        answers.set()


async def test_a_host_whose_address_is_taken_ends_with_a_sentence_that_names_its_setting(host: Host[Any]) -> None:
    name = "HEALTH_BIND" if isinstance(host, StreamerHost) else "API_BIND"
    with socket.create_server(("127.0.0.1", 0)) as other:
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        host.settings = host.settings.model_copy(update={name.lower(): bind})
        with pytest.raises(Misuse, match=rf"cannot listen at {bind}\..* Set {name} "):
            await AsyncExitStack().enter_async_context(served(host, http.HealthReport(host.settings)))


@pytest.mark.parametrize("body", [b"[" * 60_000, b"\xff", b"[]", b"", b"1" * 10_000])
async def test_a_host_whose_answer_is_no_health_report_counts_as_silent(body: bytes) -> None:
    """Whatever it is: a streamer without the control host asks the others, and its lease must not end by an answer."""
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    async with answering(lambda _path: raw) as url:
        assert await healths.of(url.removeprefix("http://"), 10) is None
