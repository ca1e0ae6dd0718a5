"""The timetable is written down by one thread at a time, however long the disk hangs."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lectern.playout import kept
from lectern.playout.desk import Desk
from lectern.playout.timetable import TimetableFile
from lectern.playout.worker import Worker
from tests.playout.receiver import wait_until
from tests.playout.stage import Playout

pytestmark = pytest.mark.live


class Disk:
    """Hangs as long as `go` is not set; `at_work` counts the threads that it holds up."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.at_work = 0


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    found, replace = Disk(), Path.replace

    def hang(self: Path, target: Any) -> Path:
        if tmp_path not in self.parents:  # of another thread of the tests
            return replace(self, target)
        found.at_work += 1
        assert found.go.wait(60)
        found.at_work -= 1
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", hang)
    monkeypatch.setattr(kept, "WAIT_S", 0.3)
    yield found
    found.go.set()


def at_work(folder: Path) -> Desk:
    """The desk of a worker without classes."""
    station, terms = SimpleNamespace(), SimpleNamespace(folder=folder, holder=1)
    shared, file = SimpleNamespace(lease_until=0.0), TimetableFile(folder / "timetable.json")
    return Desk(cast("Worker", SimpleNamespace(station=station, terms=terms, shared=shared, file=file, airings={})))


@pytest.mark.asyncio
async def test_a_cancel_is_answered_though_the_disk_hangs(tmp_path: Path, disk: Disk) -> None:
    """Else its client gives up, and each client that gave up has a connection, until no other gets one."""
    desk = at_work(tmp_path)
    desk._worker.airings["c1"] = cast("Any", SimpleNamespace(state="ended"))
    async with asyncio.timeout(8):
        answer = await desk.does["cancel"]({"class_id": "c1"})
    disk.go.set()
    assert (answer["was"], answer["durable"]) == ("ended", False)
    assert "hangs" in answer["why"]


def test_drafts_of_workers_that_were_killed_are_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    drafts = [folder / f".timetable.json.{number}.tmp" for number in (1, 99_999_999)]
    for one in drafts:
        one.write_text("{")
    with Playout(folder) as playout:
        playout.air("c1", tmp_path / "a.flv", "rtmp://127.0.0.1/live/c1", starts_in_s=600)
        wait_until(lambda: not any(one.exists() for one in drafts), timeout_s=10, description="no draft is left")
