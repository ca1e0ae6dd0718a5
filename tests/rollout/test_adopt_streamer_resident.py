"""The streamer's own process goes on with what was taken over: it airs, and it downloads what is missing."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lectern.db.engine import open_database
from lectern.rollout.takeover import streamer
from lectern.rollout.takeover.streamer import Sources
from tests.effects import old_databases as old
from tests.rollout.old_streamer import PATTERNS, local
from tests.stage import PROMPT_S, Stage, Town, staged, wait_until

pytestmark = pytest.mark.live
WHO = "streamer1"


@pytest.fixture
def stage(town: Town, tmp_path: Path) -> Iterator[Stage]:
    """A host of the old program, without a teacher that would know its classes."""
    with staged(town, tmp_path) as made:
        old.build(made.database(WHO), [old.OLD_TASKS])
        yield made


def has_class(stage: Stage, class_id: str, record: int, starts_in_s: float) -> float:
    """A class as the old program wrote it; returns when it begins."""
    start = float(round(time.time() + starts_in_s))
    url, push_url = f"{stage.town.origin.url}/{record}/{record}.flv", stage.town.receiver.url(class_id)
    row = (class_id, url, push_url, local(start), str(int(start) + 6), 1, "Li")
    statement = f"INSERT INTO task_list VALUES {row}"
    old.build(stage.database(WHO), [statement])
    return start


def taken_over(stage: Stage) -> None:
    """The migration, and then the streamer's process."""
    stage.init(WHO)
    engine = open_database(f"sqlite:///{stage.database(WHO)}")
    sources = Sources(stage.folder / WHO, [], PATTERNS, stage.folder / "moves.json")
    streamer.adopt(engine, sources, stage.name(WHO), time.time())
    engine.dispose()
    stage.up(WHO)


def test_a_class_of_the_old_program_is_on_air_at_its_second(stage: Stage) -> None:
    """With the old program's recording, under its new name; then its citation is taken back."""
    record = stage.town.record()
    (stage.folder / WHO).mkdir()
    shutil.copy(stage.town.origin.root / str(record) / f"{record}.flv", stage.folder / WHO / "c-1.flv")
    start = has_class(stage, "c-1", record, starts_in_s=60)
    taken_over(stage)
    assert stage.airing(WHO, "c-1")["state"] == "ready"
    wait_until(lambda: stage.airing(WHO, "c-1")["run_id"], description="the sweeper has scheduled it")
    wait_until(lambda: stage.airing(WHO, "c-1")["state"] == "aired", timeout_s=90, description="it is aired")
    (push,) = stage.pushes("c-1")
    assert push.first_media_at is not None
    assert 0 <= push.first_media_at - start < PROMPT_S
    assert stage.num_cite(WHO, str(record)) == 0
    assert stage.town.asked(f"{record}/{record}.flv") == 0


def test_a_recording_that_is_missing_is_downloaded_once_for_all_its_classes(stage: Stage) -> None:
    """The old program noted no size: its room is made when the origin says it, and what is idle goes for it."""
    stage.settings["MAX_VIDEO_NUM"] = "2"
    record = stage.town.record()
    (stage.folder / WHO).mkdir()
    for idle in (1, 2):
        shutil.copy(stage.town.origin.root / str(record) / f"{record}.flv", stage.folder / WHO / f"{idle}.flv")
    for class_id in ("c-1", "c-2"):
        has_class(stage, class_id, record, starts_in_s=900)
    taken_over(stage)
    wait_until(
        lambda: all(stage.airing(WHO, one)["run_id"] for one in ("c-1", "c-2")), description="both are scheduled"
    )
    assert stage.num_cite(WHO, str(record)) == 2
    assert stage.town.asked(f"{record}/{record}.flv") == 1
    wait_until(lambda: len(stage.cached(WHO)) == 2, description="one of the idle ones has gone")
    (sums,) = stage.rows(WHO, "select num, reserved_bytes, reserved_num from dir_info")
    assert (sums["num"], sums["reserved_bytes"], sums["reserved_num"]) == (2, 0, 0)


def test_a_recording_that_has_no_room_is_refused_with_316(stage: Stage) -> None:
    """When the origin has said how large it is."""
    stage.settings["MAX_VIDEO_SIZE"] = "0.00001"
    record = stage.town.record()
    has_class(stage, "c-1", record, starts_in_s=900)
    taken_over(stage)
    wait_until(lambda: stage.airing(WHO, "c-1")["state"] == "refused", description="it is refused")
    assert stage.airing(WHO, "c-1")["code"] == 316
    (sums,) = stage.rows(WHO, "select num, reserved_bytes, reserved_num from dir_info")
    assert (sums["num"], sums["reserved_bytes"], sums["reserved_num"]) == (0, 0, 0)
