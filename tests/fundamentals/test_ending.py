"""A process that ends says truly why, and gives back what it has, whatever fails on the way."""

import asyncio
import logging
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy.exc import OperationalError

from flows.host import Host
from flows.resident import process
from flows.resident.process import Resident
from flows.trouble import MustEnd
from lectern.settings import StreamerSettings


class Said:
    """A Redis that keeps what it is told at the end."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def part(self, _key: str, name: str) -> None:
        self.told.append(f"{name} is leaving")

    async def let_go(self, lock: str, _owner: str) -> None:
        self.told.append(f"{lock} is free")

    async def close(self) -> None:
        self.told.append("closed")


@pytest.fixture
def streamer(streamer: Host[StreamerSettings]) -> Host[StreamerSettings]:
    streamer.bus = cast("Any", Said())
    return streamer


def test_a_process_whose_disk_is_full_leaves_as_any_other_and_says_why_it_ends(
    streamer: Host[StreamerSettings], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def full(_host: object) -> None:
        raise OperationalError("UPDATE", {}, Exception("database or disk is full"))

    monkeypatch.setattr(process, "tell", full)
    ending = Resident(streamer.settings)

    async def main() -> None:
        try:
            raise MustEnd("inbox: 3 messages could not be written; is the disk full?")
        finally:
            await ending._leave(streamer)

    monkeypatch.setattr(ending, "_main", main)
    with caplog.at_level(logging.ERROR, "lectern"):
        ending.run()
    name = streamer.settings.name
    assert cast("Said", streamer.bus).told == [f"{name} is leaving", f"lectern:queue:{name} is free", "closed"]
    assert "inbox: 3 messages could not be written" in caplog.text
    assert "nobody expected" not in caplog.text


def test_a_process_that_is_asked_to_stop_before_it_has_begun_stops(tmp_path: Path) -> None:
    """SIGTERM can come between the start of its thread and that of its loop; it was ended by force then."""
    resident = Resident(StreamerSettings.load(_env_file=None, streamer_name="s1", video_root=tmp_path))
    resident.stop()

    async def asked() -> None:
        async with asyncio.timeout(5):
            await resident._stop.wait()

    asyncio.run(asked())
