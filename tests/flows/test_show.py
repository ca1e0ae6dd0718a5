"""What a host shows of itself in the UI holds up nothing that it does."""

import asyncio
import time
from typing import Any, cast
from uuid import uuid4

import pytest

from flows import show
from flows.show import Board
from lectern import words


class Slow:
    """A Prefect server that takes its time, as a busy one does."""

    def __init__(self) -> None:
        self.pause_s = 60.0
        self.made = 0

    async def create_artifact(self, _wanted: object) -> Any:
        await asyncio.sleep(self.pause_s)
        self.made += 1
        return type("Artifact", (), {"id": uuid4()})


def test_a_table_that_is_not_taken_in_time_is_shown_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The checks of the classes wait for it no longer than that."""
    monkeypatch.setattr(show, "SHOW_S", 0.1)
    server = Slow()
    shown = Board(cast("Any", server))

    async def table() -> None:
        await shown.table("timetable-s1", [{"class": "c-1"}], "the day")

    began = time.monotonic()
    asyncio.run(table())
    assert time.monotonic() - began < 5
    assert "artifact timetable-s1: not shown: no answer within 0.1 s" in caplog.text
    server.pause_s = 0
    asyncio.run(table())
    assert server.made == 1


def test_a_table_says_as_of_when_it_is_also_when_it_is_brought_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Server(Slow):
        async def create_artifact(self, wanted: Any) -> Any:
            said.append(wanted.description)
            return await super().create_artifact(wanted)

        async def request(self, *_: object, json: dict[str, str], **__: object) -> None:
            said.append(json["description"])

    server = Server()
    server.pause_s = 0
    shown = Board(cast("Any", server))
    clock = iter(("19:00:00", "19:00:15"))
    monkeypatch.setattr(words, "moment", lambda _now: next(clock))

    async def both() -> None:
        await shown.table("timetable-s1", [{"class": "c-1"}], "the day")
        await shown.table("timetable-s1", [{"class": "c-2"}], "the day")

    asyncio.run(both())
    assert said == ["the day; as of 19:00:00", "the day; as of 19:00:15"]


@pytest.mark.parametrize(
    ("key", "slug"), [("broadcast-c-1", "broadcast-c-1"), ("broadcast-A_b.c:~1", "broadcast-a-b-c-1")]
)
def test_whatever_a_class_is_called_its_bar_has_a_key(key: str, slug: str) -> None:
    assert show.Progress(key, "on air")._key == slug
