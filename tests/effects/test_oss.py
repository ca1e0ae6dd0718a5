"""The signed POST to the OSS transcoder."""

import json

import pytest

from lectern.effects import oss
from lectern.errors import FallBack, TryAgain
from lectern.states import Resolution
from tests.effects.conftest import Origin


def test_a_signature_is_that_of_the_contract() -> None:
    """md5 of ``record_id=6666&video_resolution=720P&key=secret``."""
    fields = {"video_resolution": "720P", "record_id": 6666, "sign": "not part of it"}
    assert oss.sign(fields, "secret") == "6ca4e3fab9ed7595ac502597e3335334"


def test_a_signature_is_verified() -> None:
    fields = {"record_id": 6666, "video_resolution": "720P"}
    assert oss.verify(fields, oss.sign(fields, "secret"), "secret")
    assert not oss.verify(fields, oss.sign(fields, "other"), "secret")
    assert not oss.verify({**fields, "record_id": 7}, oss.sign(fields, "secret"), "secret")
    assert not oss.verify(fields, "é", "secret")


async def ask(url: str, timeout_s: float = 5) -> None:
    await oss.request_transcoding(url, 6666, Resolution.P720, "secret", timeout_s=timeout_s)


@pytest.mark.asyncio
async def test_a_request_is_one_signed_post(origin: Origin) -> None:
    await ask(f"{origin.url}/t")
    (body,) = (json.loads(posted) for posted in origin.posted)
    assert body == {
        "record_id": 6666,
        "video_resolution": "720P",
        "sign": oss.sign({"record_id": 6666, "video_resolution": "720P"}, "secret"),
    }


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_busy_transcoder_is_asked_again_later(origin: Origin, status: int) -> None:
    origin.statuses["/t"] = [status]
    with pytest.raises(TryAgain, match=str(status)):
        await ask(f"{origin.url}/t")
    assert len(origin.posted) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [302, 400, 401, 404])
async def test_a_transcoder_that_says_no_is_fallen_back_from(origin: Origin, status: int) -> None:
    origin.statuses["/t"] = [status]
    with pytest.raises(FallBack, match=f"answer {status}"):
        await ask(f"{origin.url}/t")


@pytest.mark.asyncio
async def test_a_dead_transcoder_is_asked_again_later() -> None:
    with pytest.raises(TryAgain, match="no answer"):
        await ask("http://127.0.0.1:1/t")


@pytest.mark.asyncio
async def test_a_url_that_is_none_is_fallen_back_from() -> None:
    with pytest.raises((FallBack, TryAgain)):
        await ask("http://[::bad/t")
