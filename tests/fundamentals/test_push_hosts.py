"""Where classes may be pushed to: public hosts, what is listed, and where they were pushed to before."""

import asyncio
import ipaddress
import logging
import threading

import pytest

from flows.handling import Delivery
from flows.host import StreamerHost
from flows.streamer import downloads
from flows.streamer import prepare as streamer_prepare
from flows.streamer.prepare import Asked
from lectern.allowlist import Address, Allowlist
from lectern.errors import DOWNLOAD_FAILED, Refuse, TryAgain
from lectern.model.facts import InboxMessage
from lectern.states import AiringState
from lectern.storage import origin
from lectern.storage.origin import RemoteFile
from tests import rows
from tests.rows import commit

PRIVATE = "rtmp://10.0.0.5:1935/live/key"
NAMES = {"inner.example": "10.0.0.6", "outer.example": "8.8.8.8"}


@pytest.fixture(autouse=True)
def asked_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A name server of two names; what was asked."""
    asked: list[str] = []

    def addresses(host: str, port: int) -> list[Address]:
        asked.append(host)
        try:
            return [ipaddress.ip_address(NAMES.get(host, host))]
        except ValueError as error:
            raise origin.NoSuchHost(host) from error

    monkeypatch.setattr(origin, "addresses", addresses)
    monkeypatch.setattr(streamer_prepare, "LOOK_UP_S", 60.0)  # a busy machine takes no name server for one that hangs
    streamer_prepare._known_servers.clear()
    return asked


def allowing(host: StreamerHost, setting: str) -> StreamerHost:
    host.settings = host.settings.model_copy(update={"allowed_push_hosts": setting})
    return host


def take(host: StreamerHost, class_id: str, push_url: str, state: AiringState) -> None:
    one = rows.prepare(class_id, 1, 2e9, 60, push_url=push_url)
    commit(host.engine, rows.add, one, state, "/home/video/1/1.flv", 1e9)


def why(host: StreamerHost, *urls: str) -> dict[str, str]:
    return asyncio.run(streamer_prepare.forbidden_pushes(host, urls))


@pytest.mark.parametrize("url", [PRIVATE, "rtmps://inner.example/live/key", "rtmp://127.0.0.1/live/key"])
def test_a_private_host_is_refused_and_told_what_to_set(streamer: StreamerHost, url: str) -> None:
    (said,) = why(streamer, url, "rtmp://outer.example/live/x").values()
    assert f"set ALLOWED_PUSH_HOSTS=public,{url.split('/')[2].partition(':')[0]}" in said
    assert "key" not in said


def test_a_listed_host_is_allowed_and_a_class_that_was_refused_opens_no_door(streamer: StreamerHost) -> None:
    """Lists of private hosts keep public ones out."""
    take(streamer, "c-refused", PRIVATE, AiringState.REFUSED)
    assert list(why(streamer, PRIVATE)) == [PRIVATE]
    for setting in ("10.0.0.5", "10.0.0.5:1935", "public,10.0.0.0/8"):
        assert why(allowing(streamer, setting), PRIVATE) == {}
    (said,) = why(allowing(streamer, "10.0.0.0/8"), "rtmp://outer.example/live/x").values()
    assert said.endswith("set ALLOWED_PUSH_HOSTS=10.0.0.0/8,outer.example")


def test_a_host_pushed_to_before_stays_allowed(streamer: StreamerHost, caplog: pytest.LogCaptureFixture) -> None:
    """An upgrade breaks no push; as soon as the setting is set, it alone counts."""
    take(streamer, "c-old", PRIVATE, AiringState.AIRED)
    with caplog.at_level(logging.WARNING, "lectern"):
        assert why(streamer, PRIVATE) == {}
        assert why(streamer, PRIVATE) == {}
    (said,) = [one.getMessage() for one in caplog.records]
    assert said.startswith("10.0.0.5: is no public host, and taken because classes were pushed to it before: ")
    assert said.endswith("set ALLOWED_PUSH_HOSTS=public,10.0.0.5")
    its = [ipaddress.ip_address("10.0.0.5")]
    assert asyncio.run(streamer_prepare.push_allowlist(streamer)).forbidden("10.0.0.5", 1935, its) is None
    assert list(why(streamer, "rtmp://10.0.0.5:22/live/x")) == ["rtmp://10.0.0.5:22/live/x"]
    assert list(why(allowing(streamer, "public"), PRIVATE)) == [PRIVATE]


def test_a_name_is_looked_up_once_a_minute_and_a_server_that_hangs_refuses_no_class(
    streamer: StreamerHost, asked_names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        why(streamer, f"rtmp://outer.example/live/{number}", f"rtmp://outer.example/live/x{number}")
    assert asked_names == ["outer.example"]
    assert why(streamer, "rtmp://nowhere.example/live/x") == {}
    go_on = threading.Event()
    monkeypatch.setattr(streamer_prepare, "LOOK_UP_S", 0.1)
    monkeypatch.setattr(origin, "addresses", lambda *_: go_on.wait(10) and [])
    assert why(streamer, "rtmp://slow.example/live/x") == {}
    go_on.set()


@pytest.mark.parametrize("listed", ["[fd00::1]", "[FD00:0:0:0:0:0:0:1]", "[fd00:0000::0001]:1935"])
def test_an_address_is_listed_however_it_is_written(listed: str) -> None:
    """An address of version 6 has many spellings: the setting's and the URL's need not be the same."""
    places = Allowlist.listed(listed, "ALLOWED_PUSH_HOSTS")
    for host in ("fd00::1", "fd00:0:0:0:0:0:0:1"):
        assert places.forbidden(host, 1935, [ipaddress.ip_address("fd00::1")]) is None
        assert places.of_server(host, 1935) is None
    assert places.forbidden("fd00::2", 1935, [ipaddress.ip_address("fd00::2")]) is not None


# What an origin answers for one recording is that recording's error, and holds up no other class.


GOOD = "http://127.0.0.1/good.flv"
ODD = "http://127.0.0.1/odd.flv?Signature=planted"


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What origins were asked for: one is slow, one breaks what looks at it, one is busy."""
    looked: list[str] = []

    async def look(url: str, **_: object) -> RemoteFile:
        looked.append(url)
        if "slow" in url:
            await asyncio.sleep(2 * streamer_prepare.PORTION_S)
        if "busy" in url:
            raise TryAgain("it answers 503")
        if url == ODD:
            raise RuntimeError("planted")
        return RemoteFile(url, 3, None, None)

    monkeypatch.setattr(origin, "look", look)
    return looked


def asked(number: int, name: str, url: str) -> Asked:
    message = rows.prepare(name, number, 2e9, video_url=url)
    return Delivery(InboxMessage(number, "prepare", "", 0), message)


@pytest.mark.usefixtures("looked")
async def test_an_origin_that_takes_its_time_holds_up_no_class_of_another_one(streamer: StreamerHost) -> None:
    """It does not matter how many there are at the slow origin."""
    slow = [asked(one, f"c-{one}", f"http://slow/{one}") for one in range(10, 10 + 3 * streamer_prepare.PROBES_AT_HOST)]
    came = [*slow, asked(4, "c-good", GOOD)]
    portions = streamer_prepare.as_probed(streamer, came)
    found = [{one.class_id for one in streamer_prepare.prepares(some)} async for some, _ in portions]
    assert "c-good" in found[0]
    assert set().union(*found) == {one.class_id for one in streamer_prepare.prepares(came)}
    assert sum(map(len, found)) == len(came)


@pytest.mark.usefixtures("looked")
async def test_an_error_that_nobody_foresaw_is_that_of_its_url(
    streamer: StreamerHost, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with the place where it came up; the other recording is looked at as ever."""
    came = [asked(1, "c-odd", ODD), asked(2, "c-good", GOOD)]
    (found,) = [looked async for _, looked in streamer_prepare.as_probed(streamer, came)]
    assert found["2"] == RemoteFile(GOOD, 3, None, None)
    assert isinstance(found["1"], Refuse)
    assert found["1"].code is DOWNLOAD_FAILED
    assert "RuntimeError in look, line " in found["1"].message
    assert "RuntimeError in look, line " in caplog.text
    assert "planted" not in caplog.text + found["1"].message


async def test_a_download_is_tried_as_often_as_is_set(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, looked: list[str]
) -> None:
    monkeypatch.setattr(downloads, "FIRST_PAUSE_S", 0.01)
    streamer.settings = streamer.settings.model_copy(update={"download_tries": 2})
    commit(streamer.engine, rows.reserve, streamer.settings.video_root, "1", 10, "http://busy/1.flv", 1e9)
    with pytest.raises(TryAgain):
        await downloads._fetched(streamer, "1")
    assert looked == ["http://busy/1.flv"] * 2
