"""What a killed process leaves is gone on with; what is away for long costs little; a full disk is 316 and an alarm."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.small_disk import SmallDisk, small_disk
from tests.stage import Gate, Stage, Town, staged, wait_until

pytestmark = pytest.mark.live


AWAY_S = 25.0
"""Longer than every backoff grows."""
BUSY = 0.5
"""So many of a processor's seconds a second are a busy loop; a process that waits needs a twentieth of it."""
GROWTH_BYTES = 60 * 1024**2
MESSAGES = 2000


def reserved(stage: Stage) -> tuple[int, int]:
    """Bytes and places that downloads have reserved."""
    (row,) = stage.rows("streamer1", "select reserved_bytes, reserved_num from dir_info")
    return row["reserved_bytes"], row["reserved_num"]


def test_a_damaged_database_is_named_at_the_start_with_the_way_out(town: Town, tmp_path: Path) -> None:
    """The process ends at once, has changed nothing, and its last word is a heading of the runbook."""
    with staged(town, tmp_path) as stage:
        stage.init("streamer1")
        file = stage.database("streamer1")
        assert not file.with_name(f"{file.name}-wal").exists(), "init closes what it has opened"
        damaged = file.read_bytes()[:4096] + b"\x5a" * 8192
        file.write_bytes(damaged)
        ended = stage.lectern("streamer1", "serve", "streamer")
        said = ended.stdout + ended.stderr
        assert ended.returncode != 0
        assert "Traceback" not in said
        heading = "the file is damaged, or is no SQLite database"
        assert heading in said
        assert "streamer1.db" in said
        assert f"## {heading}" in (Path(__file__).parents[2] / "RUNBOOK.md").read_text()
        assert file.read_bytes() == damaged


@pytest.fixture(scope="module")
def walled(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, dict[str, Gate]]]:
    """A teacher and a streamer that reach Redis and Prefect through gates."""
    gates = {"redis": Gate(town.redis_port), "prefect": Gate(town.prefect_port)}
    for gate in gates.values():
        town.background.run(gate.start())
    urls = {
        "REDIS_URL": f"redis://127.0.0.1:{gates['redis'].port}/0",
        "PREFECT_API_URL": f"http://127.0.0.1:{gates['prefect'].port}/api",
    }
    with staged(town, tmp_path_factory.mktemp("away"), **urls) as found:
        found.up("teacher", "streamer1")
        found.answer(found.book(found.booking(town.record())))
        yield found, gates
    for gate in gates.values():
        town.background.run(gate.stop())


def used(stage: Stage, who: str) -> tuple[float, int]:
    """Processor seconds and memory of a resident process."""
    process = psutil.Process(stage.residents[who].pid)
    times = process.cpu_times()
    return times.user + times.system, process.memory_info().rss


@pytest.mark.parametrize("what", ["redis", "prefect"])
def test_what_is_away_for_long_is_waited_for_without_a_busy_loop(
    walled: tuple[Stage, dict[str, Gate]], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In bounded memory, whatever arrives meanwhile; then all of it is answered."""
    stage, gates = walled
    record = stage.town.record()
    stage.town.background.run(gates[what].stop())
    before = {who: used(stage, who) for who in stage.residents}
    began = time.monotonic()
    try:
        bookings = [stage.booking(record, starts_in_s=-60, length_s=1) for _ in range(MESSAGES)]
        with stage.town.redis.pipeline(transaction=False) as pipe:
            for one in bookings:
                pipe.xadd(stage.channels["order"], {"body": json.dumps(one)})
            pipe.execute()
        wait_until(lambda: time.monotonic() - began > AWAY_S, description=f"{what} is away for long")
        lasted_s = time.monotonic() - began
        after = {who: used(stage, who) for who in stage.residents}
    finally:
        stage.town.background.run(gates[what].start())
    for who, (cpu_s, rss_bytes) in after.items():
        share, growth = (cpu_s - before[who][0]) / lasted_s, rss_bytes - before[who][1]
        with capsys.disabled():
            print(f" [{what} away, {who}: {share:.1%} of a processor, {growth / 1024**2:+.0f} MiB]", end="")  # noqa: T201
        assert share < BUSY
        assert growth < GROWTH_BYTES
    answered = lambda: all(stage.ear.answers[one["class_id"]] for one in bookings)  # noqa: E731
    wait_until(answered, timeout_s=180, description="all are answered")


@pytest.fixture
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    with small_disk(tmp_path_factory.mktemp("small")) as found:
        yield found


@pytest.fixture
def full_disk_stage(town: Town, disk: SmallDisk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A teacher, and a streamer whose database and renditions lie on the small disk."""
    with staged(town, tmp_path_factory.mktemp("disk")) as found:
        found.database("streamer1").symlink_to(disk.path / "streamer1.db")
        own = {"STREAMER_DATABASE_URL": f"sqlite:///{disk.path}/streamer1.db", "VIDEO_ROOT": f"{disk.path}/videos"}
        found.own = {"streamer1": own}
        found.up("teacher", "streamer1")
        yield found


def put_on_air(host: Stage) -> str:
    """A class that is on air for longer than a test takes."""
    class_id = host.book(host.booking(host.town.record(seconds=300), starts_in_s=2, length_s=300))
    host.on_air(class_id, timeout_s=120)
    return class_id


def goes_on(host: Stage, class_id: str) -> None:
    """The class is on air, by the same push, and its process is the same."""
    (push,) = host.pushes(class_id)
    seen = push.last_media_at
    wait_until(lambda: host.pushes(class_id)[0].last_media_at != seen, description="more pictures come")
    (push,) = host.pushes(class_id)
    assert push.ended_at is None
    assert host.residents["streamer1"].exit_code is None


def test_a_full_disk_stops_nothing_that_is_on_air(full_disk_stage: Stage, disk: SmallDisk) -> None:
    """Not even a message can be written down: it waits on its stream until there is room, and a person is called."""
    on_air = put_on_air(full_disk_stage)
    disk.fill()
    waiting = full_disk_stage.book(full_disk_stage.booking(full_disk_stage.town.record()))
    wait_until(lambda: full_disk_stage.alarms(316), description="a person is called")
    assert "the disk cannot be written" in full_disk_stage.residents["streamer1"].said()
    goes_on(full_disk_stage, on_air)
    assert not full_disk_stage.ear.answers[waiting]
    disk.empty()
    assert full_disk_stage.answer(waiting, timeout_s=120)["result"] == "success"
    goes_on(full_disk_stage, on_air)


def test_a_disk_that_has_become_read_only_stops_nothing_that_is_on_air(full_disk_stage: Stage, disk: SmallDisk) -> None:
    """A person is called, and has until its end."""
    on_air = put_on_air(full_disk_stage)
    disk.break_down()
    full_disk_stage.book(full_disk_stage.booking(full_disk_stage.town.record()))
    wait_until(lambda: full_disk_stage.alarms(316), description="a person is called")
    goes_on(full_disk_stage, on_air)
