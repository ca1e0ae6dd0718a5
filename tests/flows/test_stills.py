"""Stills are made when somebody looks, once for all who do, and shown to nobody who may not see the class."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from flows.host import StreamerHost
from flows.streamer import stills
from flows.streamer.stills import AT_ONCE, Stills, StillServer
from lectern.db import leases
from lectern.errors import TryAgain
from lectern.media import ffmpeg
from tests.rows import commit


async def test_a_still_is_made_once_for_all_who_look_and_again_when_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, begun, go = Stills(1), list[int](), asyncio.Event()

    async def make() -> bytes:
        begun.append(1)
        await go.wait()
        return b"picture"

    first, second = (asyncio.create_task(kept.of("c-1", make)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()  # whoever goes away takes the picture from nobody
    go.set()
    assert await second == b"picture"
    assert await kept.of("c-1", make) == b"picture"
    assert len(begun) == 1
    monkeypatch.setattr(stills, "KEPT_S", -1.0)
    old = Stills(1)
    for _ in range(2):
        await old.of("c-1", make)
    assert len(begun) == 3


async def test_no_more_stills_are_asked_for_at_once_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stills, "MOST", 2)
    kept, never = Stills(1), asyncio.Event()

    async def make() -> bytes:
        await never.wait()
        return b""

    waiting = [asyncio.create_task(kept.of(f"c-{n}", make)) for n in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(TryAgain):
        await kept.of("c-3", make)
    never.set()
    assert await asyncio.gather(*waiting) == [b"", b""]


class Said:
    """Stands for the playout: what it airs, and where it is."""

    def __init__(self) -> None:
        self.classes = [{"class_id": "c-1", "state": "on_air", "slate": False, "position_s": 61.5}]
        self.confirmed = {"c-1": {"file": "/video/6666.flv", "slate": "/slate.flv"}}
        self.at_work = self.most_at_work = 0

    def airs(self, *names: str) -> None:
        self.classes = [{**self.classes[0], "class_id": name} for name in names]
        self.confirmed = {name: {"file": f"/{name}.flv"} for name in names}

    async def ask(self, *_: object, class_id: str, **__: object) -> dict[str, Any]:
        """Of that class only: to tell of all for each still would take the time of those on air."""
        return {"classes": [one for one in self.classes if one["class_id"] == class_id]}


@pytest.fixture
def said(streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch) -> Said:
    made = Said()
    monkeypatch.setattr(streamer, "playout", made)

    async def excerpt(recording: Path, at_s: float) -> bytes:
        return f"{recording} at {at_s}".encode()

    async def jpeg(excerpt: bytes) -> bytes:
        made.at_work += 1
        made.most_at_work = max(made.most_at_work, made.at_work)
        await asyncio.sleep(0.01)
        made.at_work -= 1
        if b"broken" in excerpt:
            raise TryAgain("no picture: broken")
        return excerpt

    monkeypatch.setattr(ffmpeg, "excerpt", excerpt)
    monkeypatch.setattr(ffmpeg, "jpeg", jpeg)
    return made


@pytest.fixture
async def client(streamer: StreamerHost) -> AsyncIterator[httpx.AsyncClient]:
    """It knows the session of the streamer's lease."""
    commit(streamer.engine, leases.hold, streamer.settings.name, "s-1", 1.0)
    transport = httpx.ASGITransport(app=Starlette(routes=StillServer(streamer).routes()))
    headers = {"Authorization": "Bearer s-1"}
    async with httpx.AsyncClient(transport=transport, base_url="http://streamer/still", headers=headers) as made:
        yield made


async def test_a_streamer_shows_its_class_to_whoever_knows_the_session_of_its_lease(
    streamer: StreamerHost, said: Said, client: httpx.AsyncClient
) -> None:
    """At the clock's position, or its slate; nothing of a class that is not on air."""
    for token in ("", "Bearer s-2"):
        assert (await client.get("/c-1.jpg", headers={"Authorization": token})).status_code == 401
    assert (await client.get("/c-1.jpg")).text == "/video/6666.flv at 61.5"
    answer = await client.get("/c-2.jpg")
    assert (answer.status_code, answer.text) == (404, "not on air")
    said.classes.append({**said.classes[0], "class_id": "c-3", "slate": True})
    said.confirmed["c-3"] = said.confirmed["c-1"]
    assert (await client.get("/c-3.jpg")).text == "/slate.flv at 0.0"
    commit(streamer.engine, leases.hold, streamer.settings.name, "", 1.0)
    assert (await client.get("/c-1.jpg", headers={"Authorization": "Bearer "})).status_code == 401, "it holds no lease"


async def test_of_many_that_are_asked_for_few_are_made_at_a_time(said: Said, client: httpx.AsyncClient) -> None:
    """A recording that is broken takes the picture from no other."""
    names = [f"c-{n}" for n in range(20)]
    said.airs(*names)
    said.confirmed["c-7"] = {"file": "/broken.flv"}
    answers = await asyncio.gather(*(client.get(f"/{name}.jpg") for name in names))
    assert [name for name, answer in zip(names, answers, strict=True) if answer.status_code == 404] == ["c-7"]
    assert answers[19].text == "/c-19.flv at 61.5"
    assert said.most_at_work == AT_ONCE


async def test_of_many_that_are_looked_at_few_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is kept for as long as it takes to make all of them at the rate that they may be made."""
    monkeypatch.setattr(stills, "KEPT_S", -1.0)
    kept, made = Stills(1, 60.0), list[str]()

    async def make(name: str) -> bytes:
        made.append(name)
        if name == "failed":
            raise TryAgain("no picture")
        return b""

    for name in 3 * ("c-1", "c-2", "c-3"):
        await kept.of(name, partial(make, name))
    for _ in range(2):  # it may be there at the next look
        with pytest.raises(TryAgain):
            await kept.of("c-4", partial(make, "failed"))
    assert made == ["c-1", "c-2", "c-3", "failed", "failed"]
