"""What is away for long costs little; a full disk is 316 and an alarm."""

import errno
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.ways import Ways
from tests.stage import Stage, Town, staged, wait_until

pytestmark = pytest.mark.live


AWAY_S = 25.0
"""Longer than every backoff grows."""
BUSY = 0.5
"""So many of a processor's seconds a second are a busy loop; a process that waits needs a twentieth of it."""
GROWTH_BYTES = 60 * 1024**2
MESSAGES = 2000
SIZE_BYTES = 160 * 1024**2


@pytest.fixture(scope="module")
def walled(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Ways]]:
    """A teacher and a streamer that reach Redis and Prefect through the same gates."""
    with (
        Ways(town, ("all",)) as ways,
        staged(town, tmp_path_factory.mktemp("away"), **ways.own("all")) as found,
    ):
        found.up("teacher", "streamer1")
        found.answer(found.book(found.booking(town.record())))
        yield found, ways


def used(stage: Stage, who: str) -> tuple[float, int]:
    process = psutil.Process(stage.residents[who].pid)
    times = process.cpu_times()
    return times.user + times.system, process.memory_info().rss


@pytest.mark.parametrize("what", ["redis", "prefect"])
def test_what_is_away_for_long_is_waited_for_without_a_busy_loop(walled: tuple[Stage, Ways], what: str) -> None:
    """In bounded memory, whatever arrives meanwhile; then all of it is answered."""
    stage, ways = walled
    record = stage.town.record()
    with ways.away(("all", what)):
        before = {who: used(stage, who) for who in stage.residents}
        began = time.monotonic()
        bookings = [stage.booking(record, starts_in_s=-60, length_s=1) for _ in range(MESSAGES)]
        with stage.town.redis.pipeline(transaction=False) as pipe:
            for one in bookings:
                pipe.xadd(stage.channels["order"], {"body": json.dumps(one)})
            pipe.execute()
        wait_until(lambda: time.monotonic() - began > AWAY_S, description=f"{what} is away for long")
        lasted_s = time.monotonic() - began
        after = {who: used(stage, who) for who in stage.residents}
    for who, (cpu_s, rss_bytes) in after.items():
        share, growth = (cpu_s - before[who][0]) / lasted_s, rss_bytes - before[who][1]
        assert share < BUSY
        assert growth < GROWTH_BYTES
    answered = lambda: all(stage.ear.answers[one["class_id"]] for one in bookings)  # noqa: E731
    wait_until(answered, timeout_s=180, description="all are answered")


class SmallDisk:
    """An ext4 in a file, mounted at *path*; after an error in it, it is read-only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"
        found = subprocess.run(["findmnt", "-no", "SOURCE", str(path)], capture_output=True, text=True, check=True)
        self._device = Path(found.stdout.strip()).name

    def fill(self) -> None:
        with self._filler.open("ab", buffering=0) as filler:
            for size in (2**20, 4096):
                try:
                    while True:
                        filler.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def empty(self) -> None:
        self._filler.unlink(missing_ok=True)

    def break_down(self) -> None:
        """The kernel finds a fault in the file system, and takes no more writes."""
        Path(f"/sys/fs/ext4/{self._device}/trigger_fs_error").write_text("1")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """One of the test's own, where mounts are ours to make."""
    image, path = tmp_path / "disk.img", tmp_path / "disk"
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(SIZE_BYTES)
    for argv in (
        ["mkfs.ext4", "-q", "-F", "-m", "0", str(image)],
        ["mount", "-o", "loop,errors=remount-ro", str(image), str(path)],
    ):
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip(f"{argv[0]} is not there")
        if done.returncode != 0:
            pytest.skip(f"a disk of its own needs root and a loop device: {done.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def on_air(town: Town, disk: SmallDisk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, str]]:
    """A class on air, from a streamer whose database and renditions lie on the small disk."""
    with staged(town, tmp_path_factory.mktemp("disk")) as stage:
        stage.database("streamer1").symlink_to(disk.path / "streamer1.db")
        own = {"STREAMER_DATABASE_URL": f"sqlite:///{disk.path}/streamer1.db", "VIDEO_ROOT": f"{disk.path}/videos"}
        stage.own = {"streamer1": own}
        stage.up("teacher", "streamer1")
        class_id = stage.book(stage.booking(town.record(seconds=300), starts_in_s=2, length_s=300))
        stage.on_air(class_id, timeout_s=120)
        yield stage, class_id


def goes_on(stage: Stage, class_id: str) -> None:
    """The class is on air, by the same push, and its process is the same."""
    (push,) = stage.pushes(class_id)
    seen = push.last_media_at
    wait_until(lambda: stage.pushes(class_id)[0].last_media_at != seen, description="more pictures come")
    (push,) = stage.pushes(class_id)
    assert push.ended_at is None
    assert stage.residents["streamer1"].exit_code is None


@pytest.mark.parametrize("becomes", ["full", "read-only"])
def test_a_disk_that_takes_no_writes_stops_nothing_that_is_on_air(
    on_air: tuple[Stage, str], disk: SmallDisk, becomes: str
) -> None:
    """Not even a message can be written down: a person is called, and it waits on its stream until there is room."""
    stage, class_id = on_air
    (disk.fill if becomes == "full" else disk.break_down)()
    waiting = stage.book(stage.booking(stage.town.record()))
    wait_until(lambda: stage.alarms(316), description="a person is called")
    goes_on(stage, class_id)
    if becomes == "full":
        assert "the disk cannot be written" in stage.residents["streamer1"].said()
        assert not stage.ear.answers[waiting]
        disk.empty()
        assert stage.answer(waiting, timeout_s=120)["result"] == "success"
        goes_on(stage, class_id)
