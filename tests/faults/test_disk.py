"""A streamer's disk is full, or takes no more writes: that is 316 and an alarm, and what is on air goes on."""

from collections.abc import Iterator

import pytest

from tests.faults.small_disk import SmallDisk, small_disk
from tests.stage import Stage, Town, staged, wait_until

pytestmark = pytest.mark.live


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
