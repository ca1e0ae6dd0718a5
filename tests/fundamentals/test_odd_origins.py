"""What an origin answers for one recording is that recording's error, and holds up no other class."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows.handling import Delivery
from flows.streamer import prepare as streamer_prepare
from flows.streamer.prepare import Asked
from lectern.errors import DOWNLOAD_FAILED, Refuse
from lectern.model.facts import InboxMessage
from lectern.storage import origin
from lectern.storage.origin import RemoteFile
from lectern.wire.messages import Prepare
from tests import rows

ALWAYS = SimpleNamespace(are_always=True)
GOOD = "http://127.0.0.1/good.flv"
ODD = "http://127.0.0.1/odd.flv?Signature=planted"


def prepare(class_id: str, record_id: int, url: str) -> Prepare:
    return rows.prepare(class_id, record_id, 2e9, video_url=url)


def asked(id_: int, message: Prepare) -> Asked:
    return Delivery(InboxMessage(id_, "prepare", "", 0), message)


def test_an_origin_that_takes_its_time_holds_up_no_class_of_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cached goes first, then what was looked at; it does not matter how many there are at the slow origin."""
    slow = {f"http://slow.example/{number}.flv" for number in range(100, 100 + 3 * streamer_prepare.PROBES_AT_HOST)}

    async def look(url: str, **_: object) -> RemoteFile:
        if url in slow:
            await asyncio.sleep(2 * streamer_prepare.PORTION_S)
        return RemoteFile(url, 3, None, None)

    monkeypatch.setattr(origin, "look", look)
    classes = [prepare("c-good", 1, GOOD), *(prepare(f"c-{url[-7:-4]}", 2, url) for url in sorted(slow))]
    named = [(number, one.model_copy(update={"record_id": number})) for number, one in enumerate(classes, 10)]
    came = [asked(1, prepare("c-cached", 3, GOOD)), *(asked(*one) for one in reversed(named))]
    host = cast("Any", SimpleNamespace(settings=SimpleNamespace(allowed_origins="", http_timeout_s=5, windows=ALWAYS)))

    async def portions() -> list[set[str]]:
        return [
            {one.class_id for one in streamer_prepare.prepares(some)}
            async for some, _ in streamer_prepare.as_probed(host, came, {"3"})
        ]

    found = asyncio.run(portions())
    assert found[0] == {"c-cached"}
    assert "c-good" in found[1]
    assert set().union(*found) == {one.class_id for one in streamer_prepare.prepares(came)}
    assert sum(map(len, found)) == len(came)


def test_an_error_that_nobody_foresaw_is_that_of_its_url(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with the place where it came up; the other recording is looked at as ever."""

    async def look(url: str, **_: object) -> RemoteFile:
        if url == ODD:
            raise RuntimeError("planted")
        return RemoteFile(url, 3, None, None)

    monkeypatch.setattr(origin, "look", look)
    came = [asked(1, prepare("c-odd", 1, ODD)), asked(2, prepare("c-good", 2, GOOD))]
    host = cast("Any", SimpleNamespace(settings=SimpleNamespace(allowed_origins="", http_timeout_s=5, windows=ALWAYS)))
    found = asyncio.run(streamer_prepare.probe_origins(host, came, set()))
    assert found["2"] == RemoteFile(GOOD, 3, None, None)
    assert isinstance(found["1"], Refuse)
    assert found["1"].code is DOWNLOAD_FAILED
    assert "RuntimeError in look, line " in found["1"].message
    assert "RuntimeError in look, line " in caplog.text
    assert "planted" not in caplog.text + found["1"].message
