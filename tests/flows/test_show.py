"""What a host shows of itself in the UI holds up nothing that it does."""

import asyncio
import time
from typing import Any, cast
from uuid import uuid4

import pytest

from flows import show
from flows.show import Board


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
