"""What was aired is written down by one thread at a time, however long the disk hangs."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lectern.playout import kept
from lectern.playout.kept import Kept
from tests.playout.stage import Playout
from tests.waiting import async_wait_until, wait_until

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


async def test_a_hanging_disk_holds_up_one_thread_and_has_the_newest_text_in_the_end(
    tmp_path: Path, disk: Disk
) -> None:
    """An older text that is written late must not replace it."""
    texts = ["old", "new"]
    one = Kept("it", tmp_path / "it.json", lambda: texts[0], is_synced=False)
    for _ in texts:
        assert "hangs" in (await one.write() or "")
        texts.reverse()
    texts[:] = ["newest"]
    assert disk.at_work == 1
    disk.go.set()
    await async_wait_until(
        lambda: one.path.exists() and one.path.read_text() == "newest", description="the newest is written"
    )


def test_drafts_of_processes_that_were_killed_are_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    names = ("timetable.jsonl", "aired.jsonl")
    drafts = [folder / f".{name}.{number}.tmp" for name in names for number in (1, 99_999_999)]
    for one in drafts:
        one.write_text("{")
    with Playout(folder) as playout:
        playout.air("c1", tmp_path / "a.flv", "rtmp://127.0.0.1/live/c1", starts_in_s=-1, length_s=1.5)
        wait_until(lambda: not any(one.exists() for one in drafts), description="no draft is left")
