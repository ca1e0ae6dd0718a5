"""Origins that answer oddly: whatever it is, it is an error of that URL, in words, with a code or to be tried again."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from lectern.allowlist import Allowlist
from lectern.errors import BAD_RECORDING, DOWNLOAD_FAILED, FORBIDDEN_ORIGIN, ErrorCode, Refuse, TryAgain
from lectern.storage import origin

HERE = Allowlist.listed("127.0.0.1")
LONG = "9" * 4_301  # more digits than int() takes
NO_NUMBERS = (LONG, str(2**64), "-1", "\xb2")  # the second is one more than 64 bits hold


@asynccontextmanager
async def answering(answer: Callable[[str], bytes]) -> AsyncIterator[str]:
    """A server that sends *answer* of the path asked for, byte for byte; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            writer.write(answer(head.split(" ")[1]))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def looked(raw: bytes) -> origin.RemoteFile:
    async with answering(lambda _path: raw) as url:
        return await origin.look(f"{url}/a.flv", allowed=HERE, timeout_s=20)


def ok(*headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1")


async def test_a_good_answer_is_read_and_what_promises_no_size_is_taken_without_one() -> None:
    found = await looked(ok("Content-Length: 5", 'ETag: "a"', f"x-oss-hash-crc64ecma: {2**64 - 1}"))
    assert (found.size_bytes, found.etag, found.crc64) == (5, '"a"', 2**64 - 1)
    for headers in ([], ["Content-Encoding: gzip"], ["Content-Type: text/html; charset=nonsense"]):
        assert (await looked(ok(*headers))).size_bytes is None


async def test_an_origin_is_looked_at_once_more_after_this_process_stood_still() -> None:
    """As a machine does that is paused: the limit has passed, and no answer could be read."""
    asked: list[str] = []

    def stopped_once(path: str) -> bytes:
        asked.append(path)
        if len(asked) == 1:
            time.sleep(4)
        return ok("Content-Length: 5")

    async with answering(stopped_once) as url:
        found = await origin.look(f"{url}/a.flv", allowed=HERE, timeout_s=2)
    assert (found.size_bytes, len(asked)) == (5, 2)


async def test_an_origin_that_never_answers_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.flv"
        with pytest.raises(TryAgain, match=r"no answer within 0\.3 s"):
            await origin.look(url, allowed=HERE, timeout_s=0.3)


@pytest.mark.parametrize(
    "headers",
    [
        *(["Content-Length: 5", f"x-oss-hash-crc64ecma: {odd}"] for odd in NO_NUMBERS),
        *(["Content-Length: 1", f"Content-Range: bytes 0-0/{odd}"] for odd in NO_NUMBERS),
        ["Content-Length: 5", "x-oss-hash-crc64ecma: 1", "x-oss-hash-crc64ecma: 2"],
        ["Content-Length: 5", f"ETag: {'e' * 2_000}"],
        [f"Content-Length: {2**62}"],
    ],
    ids=lambda headers: headers[-1][:30],
)
async def test_a_promise_that_nobody_can_keep_is_refused(headers: list[str]) -> None:
    with pytest.raises(Refuse) as raised:
        await looked(ok(*headers, status="206 Partial Content" if "Content-Range" in headers[-1] else "200 OK"))
    assert raised.value.code is DOWNLOAD_FAILED
    assert len(raised.value.message) < 300


NO_ANSWERS = {
    "long": ok(f"Content-Length: {LONG}"),
    "negative": ok("Content-Length: -1"),
    "no digit": ok("Content-Length: \xb2"),
    "doubled": ok("Content-Length: 1", "Content-Length: 2"),
    "huge": ok(f"X-Huge: {'x' * 200_000}"),
    "many": ok(*[f"X-{number}: x" for number in range(20_000)]),
    "bytes": b"\xff\xfe\x00\x00",
    "no header": b"HTTP/1.1 200 OK\r\nno header at all\r\n\r\n",
    "status": b"HTTP/1.1 99999 X\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("raw", NO_ANSWERS.values(), ids=NO_ANSWERS)
async def test_what_is_no_answer_is_tried_again_or_refused(raw: bytes) -> None:
    with pytest.raises((TryAgain, Refuse)) as raised:
        await looked(raw)
    assert len(raised.value.message) < 500


@pytest.mark.parametrize("body", [b"<html>not found</html>", b'\n {"code": 404}', b"FLV\x01\x05\x00\x00\x00\x09"])
async def test_a_page_in_a_recordings_place_is_refused_before_it_is_downloaded(body: bytes) -> None:
    """As it may be hours until then; an origin that knows no ranges sends all of it, of which the first bytes count."""
    raw = ok(f"Content-Length: {len(body)}") + body
    async with answering(lambda _path: raw) as url:
        looking = origin.look(f"{url}/a.flv", allowed=HERE, timeout_s=20, first_bytes=True)
        if body.startswith(b"FLV"):
            assert (await looking).size_bytes == len(body)
            return
        with pytest.raises(Refuse) as raised:
            await looking
    assert raised.value.code is BAD_RECORDING


@pytest.mark.parametrize(
    "raw",
    [ok("Content-Length: 0"), ok("Content-Range: bytes */0", "Content-Length: 5", status="416 Range Not Satisfiable")],
    ids=["no byte", "no first byte"],
)
async def test_an_empty_file_is_as_good_as_none(raw: bytes) -> None:
    """It is told as what it is, and an attempt whose output it is can be made again."""
    with pytest.raises(origin.Absent, match="the recording is empty") as raised:
        await looked(raw)
    assert raised.value.code is DOWNLOAD_FAILED


async def test_what_a_head_says_of_a_missing_file_is_believed_unless_a_get_knows_better() -> None:
    """A program that makes its answers often knows their length only once it has sent them."""
    answers = iter([ok("Content-Length: 0", status="404 Not Found"), ok("Content-Length: 7")])
    async with answering(lambda _path: next(answers)) as url:
        with pytest.raises(origin.Absent, match="answered 404") as raised:
            await origin.look(f"{url}/a.flv", allowed=HERE, timeout_s=20)
    assert raised.value.code is DOWNLOAD_FAILED
    part = ok("Content-Range: bytes 0-0/7", "Content-Length: 1", status="206 Part")
    refused = [ok("Content-Length: 0"), *(ok(status=f"{status} signed for GET") for status in (403, 405, 501))]
    answers = iter([one for head in refused for one in (head, part)])
    async with answering(lambda _path: next(answers)) as url:
        for _ in refused:
            assert (await origin.look(f"{url}/a.flv", allowed=HERE, timeout_s=20)).size_bytes == 7


NO_URLS = ["//", "http://", "http://[", "http://127.0.0.1:99999/", "http://a:b/", "http://\xff\xfe/", "\xff" * 70_000]
REDIRECTS = {"file:///etc/passwd": FORBIDDEN_ORIGIN, "http://127.0.0.2/a.flv": FORBIDDEN_ORIGIN, "": DOWNLOAD_FAILED}


@pytest.mark.parametrize(("to", "code"), [*REDIRECTS.items(), *((to, None) for to in NO_URLS)], ids=ascii)
async def test_a_redirect_to_elsewhere_or_to_no_url_is_an_error_of_that_url(to: str, code: ErrorCode | None) -> None:
    with pytest.raises(Refuse if code else (Refuse, TryAgain)) as raised:
        await looked(ok(f"Location: {to}", "Content-Length: 0", status="302 Found"))
    assert code in {None, raised.value.code}


@pytest.mark.parametrize("status", ["302 Found", "300 Multiple Choices", "304 Not Modified"])
async def test_a_redirect_to_nowhere_is_refused(status: str) -> None:
    with pytest.raises(Refuse, match=status[:3]):
        await looked(ok("Content-Length: 0", status=status))
