"""The demo's ports and its origin: what it serves, and the faults that the tests of lectern rely on."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import fastcrc
import httpx
import pytest
import pytest_asyncio

from town.faults import Fault, Faults
from town.origin import CRC_HEADER, Origin
from town.ports import HOST, free_port

CONTENT = bytes(range(256)) * 4096  # 1 MiB


async def wait_until(condition: Callable[[], object], *, timeout_s: float, description: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {description}"
        await asyncio.sleep(0.02)


@pytest_asyncio.fixture
async def origin(tmp_path: Path) -> AsyncIterator[Origin]:
    async with Origin(tmp_path / "origin") as server:
        (server.root / "6666").mkdir()
        (server.root / "6666" / "6666.flv").write_bytes(CONTENT)
        yield server


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=5, trust_env=False) as http:
        yield http


def test_a_port_is_given_to_one_process() -> None:
    """Test sessions side by side are never given the same port; it refuses clients until a server listens on it."""
    port = free_port()
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect((HOST, port))
    look = f"from town import ports; ports._FIRST, ports._LAST = {port}, {port + 1}; ports.free_port()"
    other = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=30, check=False)
    assert f"no free port between {port} and {port + 1}" in other.stderr
    with socket.create_server((HOST, port)) as server, socket.create_connection((HOST, port)):
        server.accept()[0].close()


@pytest.mark.asyncio
async def test_origin_describes_a_file(origin: Origin, client: httpx.AsyncClient) -> None:
    """HEAD and GET tell length, ETag, time of change and CRC-64/XZ; GET brings the bytes."""
    url = origin.url_for("6666/6666.flv")
    head, got = await client.head(url), await client.get(url)
    assert got.content == CONTENT
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(CONTENT))
    assert head.headers[CRC_HEADER] == str(fastcrc.crc64.xz(CONTENT))
    assert head.headers["etag"] == got.headers["etag"]
    assert "last-modified" in head.headers
    assert [(asked.method, asked.status) for asked in origin.requests] == [("HEAD", 200), ("GET", 200)]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("wanted", "status", "first", "end"),
    [
        ("bytes=0-9", 206, 0, 10),
        ("bytes=1048570-", 206, 1048570, len(CONTENT)),
        ("bytes=0-1,5-6", 200, 0, len(CONTENT)),
        ("bytes=1048576-", 416, 0, 0),
    ],
)
async def test_origin_serves_ranges(  # pytest passes by name
    origin: Origin, client: httpx.AsyncClient, wanted: str, status: int, first: int, end: int
) -> None:
    """One range is served as asked, one past the end refused, and what is no single range is no range."""
    got = await client.get(origin.url_for("6666/6666.flv"), headers={"Range": wanted})
    assert (got.status_code, got.content) == (status, CONTENT[first:end])
    if status == 206:
        assert got.headers["content-range"] == f"bytes {first}-{end - 1}/{len(CONTENT)}"


@pytest.mark.asyncio
async def test_origin_takes_uploads_under_put_only(origin: Origin, client: httpx.AsyncClient) -> None:
    """PUT makes folders, is answered with the CRC, and is refused everywhere but under /put/."""
    put = await client.put(origin.url_for("put/7/7_240P.flv"), content=CONTENT)
    assert (put.status_code, put.headers[CRC_HEADER]) == (200, str(fastcrc.crc64.xz(CONTENT)))
    assert (origin.root / "put/7/7_240P.flv").read_bytes() == CONTENT
    assert (await client.put(origin.url_for("7.flv"), content=b"x")).status_code == 403
    assert (await client.put(f"{origin.url}/put/..%2f7.flv", content=b"x")).status_code == 403
    assert [file.name for file in (origin.root / "put/7").iterdir()] == ["7_240P.flv"]


@pytest.mark.asyncio
async def test_origin_fails_as_often_as_told(origin: Origin, client: httpx.AsyncClient) -> None:
    """A status fault is used up by the requests it matches, and by no others."""
    origin.faults.add(Fault("6666/*", status=503, times=2))
    assert (await client.get(origin.url_for("other.flv"))).status_code == 404
    statuses = [(await client.get(origin.url_for("6666/6666.flv"))).status_code for _ in range(3)]
    assert statuses == [503, 503, 200]
    assert [asked.status for asked in origin.requests] == [404, 503, 503, 200]


@pytest.mark.asyncio
async def test_origin_breaks_off_and_lies(origin: Origin, client: httpx.AsyncClient) -> None:
    """A truncated answer announces its full length; a lie makes the length wrong in either direction."""
    url = origin.url_for("6666/6666.flv")
    origin.faults.add(Fault("*", method="GET", times=1, truncate_bytes=1000))
    origin.faults.add(Fault("*", method="GET", times=1, length_lie=10))
    origin.faults.add(Fault("*", length_lie=-10))
    for lie in (0, 10):
        got = b""
        with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012  # what came before the end counts
            async with client.stream("GET", url) as answer:
                assert int(answer.headers["content-length"]) == len(CONTENT) + lie
                async for part in answer.aiter_raw():
                    got += part
        assert got == (CONTENT if lie else CONTENT[:1000])
    assert (await client.get(url)).content == CONTENT[:-10]
    assert (await client.head(url)).headers["content-length"] == str(len(CONTENT) - 10)


@pytest.mark.asyncio
async def test_origin_holds_an_answer_until_it_is_let_go(origin: Origin, client: httpx.AsyncClient) -> None:
    """The first bytes of a file come, and an upload is taken, but neither ends before."""
    content = CONTENT * (1 + 600_000 // len(CONTENT))
    (origin.root / "long.flv").write_bytes(content)
    held = origin.faults.add(Fault("*", times=2, held=True))
    async with client.stream("GET", origin.url_for("long.flv")) as answer:
        parts = answer.aiter_raw()
        got = await anext(parts)
        put = asyncio.create_task(client.put(origin.url_for("put/7.flv"), content=CONTENT))
        await wait_until(lambda: held.times == 0, timeout_s=5, description="both are held")
        origin.faults.clear()
        got += b"".join([part async for part in parts])
    assert got == content
    assert (await put).status_code == 200


@pytest.mark.asyncio
async def test_origin_is_slow_or_silent(origin: Origin, client: httpx.AsyncClient) -> None:
    """Delay and rate hold an answer back; a silent origin never gives one, and stops all the same."""
    url = origin.url_for("6666/6666.flv")
    origin.faults.add(Fault("*", times=1, delay_s=0.3, rate_bytes_s=4 * len(CONTENT)))
    began = time.monotonic()
    assert (await client.get(url)).content == CONTENT
    assert time.monotonic() - began > 0.5
    origin.faults.add(Fault("*", silent=True))
    with pytest.raises(httpx.ReadTimeout):
        await client.get(url, timeout=0.2)
    assert origin.requests[-1].status == 0
    hanging = asyncio.create_task(client.get(url))
    await wait_until(lambda: len(origin.requests) == 3, timeout_s=5, description="the second silent request")
    await asyncio.wait_for(origin.stop(), 20)
    await asyncio.gather(hanging, return_exceptions=True)


def test_one_fault_is_switched_off_and_the_others_stay() -> None:
    faults = Faults()
    lost, slow = faults.add(Fault("1/*", status=404)), faults.add(Fault("*", delay_s=9.0))
    faults.clear(lost)
    assert faults.take("GET", "1/1.flv") is slow
    faults.clear()
    assert faults.take("GET", "1/1.flv") == Fault("1/1.flv")
