"""Downloads by a real wget from an origin that misbehaves."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from lectern.errors import DISK_FULL, DOWNLOAD_FAILED, CallAPerson, ErrorCode, LecternError, Misuse, Refuse, TryAgain
from lectern.storage import cache_dir, origin
from lectern.storage.origin import RemoteFile
from tests.effects.conftest import Origin
from tests.effects.test_origin import NO_ANSWERS, answering
from tests.stage import running_with
from tests.waiting import async_wait_until

BODY = os.urandom(400_000)


async def fetch(
    url: str,
    part: Path,
    *,
    address: str | None = None,
    rate: str = "0",
    timeout_s: float = 20,
    limit_bytes: int = 10**9,
    on_progress: Callable[[int], None] = lambda _: None,
) -> None:
    limits, remote = origin.WgetLimits(rate, timeout_s, limit_bytes), RemoteFile(url, None, None, None, address)
    await origin.download("/usr/bin/wget", remote, part, limits, on_progress)


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "6666" / "6666_720P.flv.part"


@pytest.fixture(name="origin")
def with_recording(origin: Origin) -> Origin:
    origin.files["/a.flv"] = BODY
    return origin


async def test_a_file_arrives_whole_at_its_rate_and_is_not_fetched_again(origin: Origin, part: Path) -> None:
    seen: list[int] = []
    begun_at = asyncio.get_running_loop().time()
    await fetch(f"{origin.url}/a.flv", part, rate="300k", on_progress=seen.append)
    assert asyncio.get_running_loop().time() - begun_at > 0.9
    assert part.read_bytes() == BODY
    assert (seen, seen[-1]) == (sorted(seen), len(BODY))
    assert any(0 < size_bytes < len(BODY) for size_bytes in seen)
    await fetch(f"{origin.url}/a.flv", part)
    assert part.read_bytes() == BODY


async def test_a_disk_that_hangs_during_a_download_does_not_hold_up_its_process(
    origin: Origin, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nothing would be answered, and a class that is cancelled would be aired, until the disk goes on."""
    loop, is_asked, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def hangs(_: Path) -> int:
        if part.exists():
            loop.call_soon_threadsafe(is_asked.set)
            assert go_on.wait(20), "nobody else got on meanwhile"
        return 0

    monkeypatch.setattr(cache_dir, "size_bytes", hangs)
    work = asyncio.create_task(fetch(f"{origin.url}/a.flv", part, rate="300k"))
    await is_asked.wait()
    go_on.set()
    await work


async def test_a_download_is_synced_whenever_so_much_came(
    origin: Origin, part: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A part that cannot be synced is fetched on."""
    synced = list[int]()

    def write_origin(part: Path, _: RemoteFile) -> None:
        synced.append(cache_dir.size_bytes(part))
        raise OSError("full")

    monkeypatch.setattr(cache_dir, "write_origin", write_origin)
    monkeypatch.setattr("lectern.storage.origin.SYNC_BYTES", 100_000)
    monkeypatch.setattr("lectern.storage.origin._LOOK_S", 0.05)
    await fetch(f"{origin.url}/a.flv", part, rate="300k")
    assert part.read_bytes() == BODY
    assert (2 <= len(synced) <= 4, synced[0] >= 100_000) == (True, True)
    assert caplog.text.count("could not be synced") == len(synced)


async def test_a_disk_that_hangs_takes_no_thread_from_what_needs_no_recording(
    part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two cores asyncio has six: four downloads took all of them, and the playout got no timetable any more.

    It is written elsewhere while the disk hangs, but in such a thread; and each class with a push host whose name could
    not be looked up was alarmed, too.
    """
    go_on, hanging = threading.Event(), list[Path]()

    def hangs(path: Path) -> int:
        hanging.append(path)
        return int(go_on.wait(20))

    monkeypatch.setattr(cache_dir, "size_bytes", hangs)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    works = [asyncio.create_task(fetch("http://origin.example/a.flv", part, limit_bytes=0)) for _ in range(2)]
    try:
        await async_wait_until(lambda: len(hanging) == 2, timeout_s=10, description="both hang")
        async with asyncio.timeout(3):
            assert await asyncio.to_thread(lambda: "written") == "written"
    finally:
        go_on.set()
    for work in works:
        with pytest.raises(Refuse, match="is larger than"):
            await work


async def test_a_cut_connection_keeps_what_has_come_and_the_next_try_goes_on_there(origin: Origin, part: Path) -> None:
    origin.cut_at["/a.flv"] = 100_000
    with pytest.raises(TryAgain):
        await fetch(f"{origin.url}/a.flv", part)
    assert part.read_bytes() == BODY[:100_000]
    origin.cut_at.clear()
    await fetch(f"{origin.url}/a.flv", part)
    assert part.read_bytes() == BODY
    assert origin.asked[-1] == ("GET", "/a.flv", "bytes=100000-")


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        *((status, Refuse, DOWNLOAD_FAILED) for status in (403, 404, 410)),
        *((status, TryAgain, None) for status in (429, 500, 503)),
    ],
)
async def test_what_is_not_there_is_refused_and_a_busy_origin_asked_again_later(
    origin: Origin, part: Path, status: int, error: type[LecternError], code: ErrorCode | None
) -> None:
    origin.statuses["/a.flv"] = [status]
    with pytest.raises(error, match=str(status)) as raised:
        await fetch(f"{origin.url}/a.flv", part)
    assert raised.value.code is code


async def test_no_file_grows_over_its_limit_and_one_of_just_that_size_arrives(origin: Origin, part: Path) -> None:
    """Of a part that is too large already nobody is asked."""
    with pytest.raises(Refuse, match="larger than the 100000 bytes") as raised:
        await fetch(f"{origin.url}/a.flv", part, limit_bytes=100_000)
    assert raised.value.code is DOWNLOAD_FAILED
    assert part.stat().st_size <= 100_000
    await fetch(f"{origin.url}/a.flv", part, limit_bytes=len(BODY))
    assert part.read_bytes() == BODY
    origin.asked.clear()
    with pytest.raises(Refuse):
        await fetch(f"{origin.url}/a.flv", part, limit_bytes=10)
    assert origin.asked == []


async def test_what_stops_a_download_is_refused_tried_again_or_calls_a_person(origin: Origin, part: Path) -> None:
    """A redirect is not followed: where it leads was not checked."""
    part.parent.mkdir()
    part.symlink_to("/dev/full")
    with pytest.raises(Refuse, match="No space left") as raised:
        await fetch(f"{origin.url}/a.flv", part)
    assert raised.value.code is DISK_FULL
    part.unlink()
    with pytest.raises(TryAgain, match="refused"):
        await fetch("http://127.0.0.1:1/a.flv", part)
    origin.asked.clear()
    origin.redirects["/b.flv"] = f"{origin.url}/a.flv"
    with pytest.raises(TryAgain):
        await fetch(f"{origin.url}/b.flv", part)
    assert origin.took("GET", "/a.flv") == 0
    with pytest.raises(Misuse, match="1000k"):
        await fetch(f"{origin.url}/a.flv", part, rate="fast")
    part.unlink(missing_ok=True)
    part.mkdir()
    with pytest.raises(CallAPerson):
        await fetch(f"{origin.url}/a.flv", part)


@pytest.mark.parametrize("name", ['it\'s "q" $(touch x).flv', "--output-document=x", "; rm -rf x"])
async def test_a_url_is_never_an_option_nor_a_command(origin: Origin, part: Path, name: str) -> None:
    with pytest.raises(Refuse):
        await fetch(f"{origin.url}/{name}", part)
    with pytest.raises((TryAgain, CallAPerson)):
        await fetch(name, part)
    assert not list(Path().glob("x"))


async def test_an_origin_that_trickles_is_ended_at_the_timeout_and_no_user_sees_the_url(
    origin: Origin, part: Path
) -> None:
    """A command line is anybody's to read."""
    origin.files["/a.flv?Signature=planted"] = BODY
    origin.slow_s = 2.0
    task = asyncio.create_task(fetch(f"{origin.url}/a.flv?Signature=planted", part, timeout_s=10))
    await async_wait_until(lambda: part.exists() and part.stat().st_size > 0, description="some of it has come")
    assert running_with(str(part)) != []
    assert running_with("Signature=planted") == []
    with pytest.raises(TryAgain, match="not done after"):
        await task
    assert running_with(str(part)) == []
    assert part.exists()


async def test_the_host_is_asked_at_the_address_that_was_checked(origin: Origin, part: Path) -> None:
    """By a name that leads nowhere: nobody looks it up again."""
    part.parent.mkdir()
    part.write_bytes(BODY[:1000])
    port = origin.url.rpartition(":")[2]
    await fetch(f"http://no-such-host.invalid:{port}/a.flv", part, address="127.0.0.1")
    assert part.read_bytes() == BODY
    assert origin.hosts[-1] == f"no-such-host.invalid:{port}"


def test_a_url_is_one_line_and_by_https_the_name_stays_in_it() -> None:
    """The certificate is verified for it."""
    assert origin.wget_input("https://h/a?b", "127.0.0.1") == ([], b"https://h/a?b\n")
    assert origin.wget_input("http://h:81/a?b", "::1") == (["--header=Host: h:81"], b"http://[::1]:81/a?b\n")
    for url in ("http://h/a\nhttp://evil/", "http://h/a\r", "http://h/\x85"):
        with pytest.raises(Refuse, match="control characters"):
            origin.wget_input(url, None)


async def test_what_wget_says_of_a_url_shows_no_query(origin: Origin, part: Path) -> None:
    origin.redirects["/b.flv?Signature=planted"] = "/c.flv?Signature=planted"
    for path in ("/a.flv?Signature=planted", "/b.flv?Signature=planted"):
        with pytest.raises((Refuse, TryAgain)) as raised:
            await fetch(f"{origin.url}{path}", part)
        assert "planted" not in str(raised.value)
        assert origin.url in str(raised.value)


ODD = {
    **NO_ANSWERS,
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx",
    "endless": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 3_000_000,
    "range": b"HTTP/1.1 206 X\r\nContent-Range: bytes 5-1/-3\r\nContent-Length: 1\r\n\r\nx",
}


@pytest.mark.parametrize("raw", ODD.values(), ids=ODD)
async def test_whatever_an_origin_sends_a_download_ends_within_its_limit_and_calls_nobody(
    part: Path, raw: bytes
) -> None:
    """What wget takes for a file is looked at afterwards."""
    async with answering(lambda _path: raw) as url:
        with suppress(TryAgain, Refuse):
            await fetch(f"{url}/a.flv", part, limit_bytes=10**6)
    assert not part.exists() or part.stat().st_size <= 2 * 10**6
