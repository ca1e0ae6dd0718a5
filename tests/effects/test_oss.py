"""The signed POST to the OSS transcoder."""

import asyncio
import json
from contextlib import closing, suppress

import pytest

from lectern.errors import OSS_REFUSES, ErrorCode, FallBack, LecternError, TryAgain
from lectern.states import Resolution
from lectern.storage import oss
from tests.effects.conftest import Origin
from tests.effects.test_origin import answering

FIELDS = {"record_id": 6666, "video_resolution": "720P"}
SIGN = "6ca4e3fab9ed7595ac502597e3335334"
"""md5 of ``record_id=6666&video_resolution=720P&key=secret``."""


async def ask(url: str, timeout_s: float = 5) -> None:
    await oss.request_transcoding(url, 6666, Resolution.P720, "secret", timeout_s=timeout_s)


async def test_a_request_is_one_post_with_the_signature_of_the_contract_which_is_verified(origin: Origin) -> None:
    await ask(f"{origin.url}/t")
    assert [json.loads(posted) for posted in origin.posted] == [{**FIELDS, "sign": SIGN}]
    assert oss.sign({"video_resolution": "720P", "record_id": 6666, "sign": "not part of it"}, "secret") == SIGN
    assert oss.verify(FIELDS, SIGN, "secret")
    assert not oss.verify(FIELDS, SIGN, "other")
    assert not oss.verify({**FIELDS, "record_id": 7}, SIGN, "secret")
    assert not oss.verify(FIELDS, "é", "secret")


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        *((status, TryAgain, None) for status in (429, 500, 503)),
        *((status, FallBack, None) for status in (302, 400, 404)),
        *((status, FallBack, OSS_REFUSES) for status in (401, 403)),
    ],
)
async def test_a_busy_transcoder_is_asked_again_later_and_one_that_says_no_is_left(
    origin: Origin, status: int, error: type[LecternError], code: ErrorCode | None
) -> None:
    """If it does not know who asks, that is told apart: the fallback would hide a wrong key."""
    origin.statuses["/t"] = [status]
    with pytest.raises(error, match=f"answer {status}") as raised:
        await ask(f"{origin.url}/t")
    assert raised.value.code is code
    assert len(origin.posted) == 1


HTTP = b"HTTP/1.1 "
ANSWERS = {
    "gzip": (HTTP + b"500 X\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnone", TryAgain),
    "brotli": (HTTP + b"400 X\r\nContent-Encoding: br, gzip\r\nContent-Length: 4\r\n\r\nnone", FallBack),
    "charset": (HTTP + b"400 X\r\nContent-Type: text/html; charset=no\r\n\r\n" + b"\xff\xfe<html>\r\n" * 9, FallBack),
    "long": (HTTP + b"400 X\r\n\r\n" + b"x" * 3_000_000, FallBack),
    "redirect": (HTTP + b"302 X\r\nLocation: http://[\r\n\r\n", FallBack),
    "length": (HTTP + b"200 X\r\nContent-Length: " + b"9" * 4_301 + b"\r\n\r\n", TryAgain),
    "bytes": (b"\xff\xff\xff", TryAgain),
    "nothing": (b"", TryAgain),
}


@pytest.mark.parametrize(("raw", "expected"), ANSWERS.values(), ids=ANSWERS)
async def test_whatever_a_transcoder_answers_is_a_retry_or_a_fallback(raw: bytes, expected: type[Exception]) -> None:
    async with answering(lambda _path: raw) as url:
        with pytest.raises(expected) as raised:
            await ask(f"{url}/t")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 500


async def test_a_transcoder_that_trickles_its_answer_is_given_up() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError), closing(writer):
            writer.write(b"HTTP/1.1 400 X\r\n\r\n")
            for _ in range(100):
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.1)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        with pytest.raises(TryAgain, match=r"no answer within 0\.5 s"):
            await ask(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/t", timeout_s=0.5)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://127.0.0.1:99999/", "http://[", "no URL", "http://\ud800/"])
async def test_a_transcoder_at_no_url_is_fallen_back_from_and_a_dead_one_asked_again(url: str) -> None:
    with pytest.raises((FallBack, TryAgain)):
        await ask(url)
    with pytest.raises(TryAgain, match="no answer"):
        await ask("http://127.0.0.1:1/t")
