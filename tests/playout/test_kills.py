"""The worker is killed at each instruction between a batch that is built and a send that has returned.

What the receiver gets is the file, in one session: with a socket that takes all, and with one that is full.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lectern.playout.feed import Feed
from lectern.playout.files import Files
from lectern.playout.journal import Mark
from lectern.playout.track import RECORDING
from tests.playout import dying, flvs
from tests.playout.receiver import Receiver, wait_until
from tests.playout.stage import Playout


def arm(file: Path, point: str) -> None:
    unfinished = file.with_suffix(".tmp")
    unfinished.write_text(point)
    unfinished.replace(file)


@pytest.mark.parametrize("points", [dying.POINTS[:6], dying.POINTS[6:]], ids=["journal", "send and receive"])
def test_a_death_at_any_instruction_is_not_noticed(tmp_path: Path, points: tuple[str, ...]) -> None:
    tags = flvs.lesson(3 + 1.6 * len(points))
    path, die = flvs.write(tmp_path / "a.flv", tags), tmp_path / "die"
    program = Path(dying.__file__)
    with Receiver() as receiver, Playout(tmp_path / "p", program=program, DIE_AT=str(die)) as playout:
        receiver.ping_every_s = 0.1
        receiver.window = 2000
        playout.air("c1", path, receiver.url("c1"), starts_in_s=3)
        wait_until(lambda: receiver.of("c1") and receiver.of("c1")[0].packets(), description="media")
        for point in points:
            worker = playout.worker()
            arm(die, point)
            wait_until(lambda: not die.exists(), description=f"the death at {point}")
            wait_until(lambda worker: playout.worker() != worker, worker, description="another worker")
            taken_over = playout.again("status")["worker"]["taken_over"]
            assert (taken_over["sessions"], taken_over["kept"]) == (1, 1), point
        (session,) = receiver.of("c1")
        wait_until(lambda: session.ended, description="the end")
        assert session.ended == "eof"
        playout.told("ended")
        assert [one for one in playout.events if one["event"] not in ("connected", "on_air", "ended")] == []
        assert session.packets() == tags
        assert len(session.pong_numbers) > 10
        assert session.pong_numbers == session.ping_numbers[: len(session.pong_numbers)], "each ping has its one pong"


@pytest.mark.parametrize("point", ["send: before", "send: after"])
def test_a_death_with_a_full_socket_is_not_noticed(tmp_path: Path, point: str) -> None:
    """Batches are half in the socket: the next worker sends the other half."""
    tags = flvs.lesson(8, size=12_000)
    path, die = flvs.write(tmp_path / "a.flv", tags), tmp_path / "die"
    program = Path(dying.__file__)
    with Receiver() as receiver, Playout(tmp_path / "p", program=program, DIE_AT=str(die), DIE_FULL="1") as playout:
        receiver.small_buffer(8192)
        playout.air("c1", path, receiver.url("c1"), starts_in_s=3, duration_s=1000)
        wait_until(lambda: receiver.of("c1") and receiver.of("c1")[0].packets(), description="media")
        for _ in range(3):
            worker = playout.worker()
            receiver.frozen.set()
            time.sleep(0.5)
            arm(die, point)
            wait_until(lambda: not die.exists(), description="the death")
            receiver.frozen.clear()
            wait_until(lambda worker: playout.worker() != worker, worker, description="another worker")
            time.sleep(0.3)
        (session,) = receiver.of("c1")
        wait_until(lambda: len(session.packets()) >= len(tags), description="all packets")
        assert {one["event"] for one in playout.events} <= {"connected", "on_air", "slate"}, playout.events
        assert all("ends after 8 s" in one["why"] for one in playout.told("slate")), "the recording itself never failed"
        assert session.packets() == tags
        assert playout.told("behind") == []


def test_a_worker_that_dies_before_its_file_is_open_leaves_what_the_one_before_knew() -> None:
    """A ping may be answered, and so a batch be written down, while the disk is still asked for the recording."""
    mark = Mark(0, 0, RECORDING, 77, 1000, 0, 0, False, 400, 400, 0, 0.0)
    saved = {"file": 77, "headers": {"9": 13}}
    with ThreadPoolExecutor(1) as pool:
        is_open = threading.Event()
        pool.submit(is_open.wait)
        feed = Feed(Files(Path("/a.flv"), Path("/a.flv.index"), None, None), pool, lambda _event, _why: None)
        feed.resume(mark, saved, 400.0)
        found = feed.track.place(), feed.track.save()
        is_open.set()
    assert found == ((RECORDING, 77, 1000, 0, 0, False, 400), saved)
