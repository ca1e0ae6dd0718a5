"""What a class on air does not notice: values that change at work, the next release with other databases, and back."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lectern.db import schema
from tests.playbooks.conftest import ROOT
from tests.playbooks.hosts.faults import STOPPED, cut_off
from tests.playbooks.hosts.scene import Scene, opened
from tests.stage import Town, wait_until

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(2400),
]  # two releases are staged on two hosts, and ten playbooks played
NEWER = "2.1.0"
CHANGED: dict[str, dict[str, Any]] = {
    "teacher1": {"teacher_transcoding_time_out": 90_000, "teacher_on_transcode_timeout": "ecs"},
    "streamer1": {"streamer_max_video_num": 900, "streamer_download_rate": "2000k"},
}
LENGTH_S = 2400
COLUMNS = "SELECT count(*) FROM pragma_table_xinfo('class_list') WHERE name = 'mood'"
LEFT_OUT = (".git", ".venv", "dist", ".demo", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", "tests")
REVISION = '''"""A column and a table that the release before does not know."""

from sqlalchemy import Column, MetaData, String, Table

from lectern.migrations.steps import complete

revision = "{role}_{next:04}"
down_revision = "{head}"

metadata = MetaData()
Table("mood_list", metadata, Column("mood", String(20), primary_key=True))
Table("{table}", metadata, Column("class_id", String(250), primary_key=True), Column("mood", String(20)))


def upgrade() -> None:
    """Make what is missing."""
    for table in metadata.tables.values():
        complete(table)
'''


@pytest.fixture(scope="module")
def newer_file(tmp_path_factory: pytest.TempPathFactory, release_file: Path) -> Path:
    """A real release of this project with another version, whose databases have grown."""
    copy, dist = tmp_path_factory.mktemp("newer") / "project", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for name in ("pyproject.toml", "uv.lock"):
        text = (copy / name).read_text()
        (copy / name).write_text(re.sub(r'(name = "lectern"\nversion = )"[^"]+"', rf'\1"{NEWER}"', text))
    for role, table in (("teacher", "order_list"), ("streamer", "class_list")):
        (head,) = schema._script(role).get_heads()  # type: ignore[arg-type]
        number = int(head.rpartition("_")[2]) + 1
        text = REVISION.format(role=role, head=head, next=number, table=table)
        (copy / f"lib/lectern/migrations/{role}/r{number:04}_moods.py").write_text(text)
    argv = [sys.executable, "-m", "playbooks.release", "--dist", str(dist)]
    done = subprocess.run(argv, cwd=copy, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def scene(town: Town, release_file: Path) -> Iterator[Scene]:
    with opened(town, release_file, "teacher1", "streamer1") as found:
        found.vary(
            streamer1={"streamer_download_rate": "40000k"}
        )  # a recording that lasts for all tests is there at once
        found.stage("streamer1")  # the teacher's is staged by the rollout itself
        yield found


@pytest.fixture
def class_id(scene: Scene) -> str:
    """A class on air, out of the release; what leaves both as they were leaves them to the next test."""
    aired = [one for one, pushes in scene.town.receiver.publishes.items() if pushes[-1].ended_at is None]
    long = [one for one in aired if one.startswith("long-")]
    if long and [host.answer() for host in scene.hosts.values()] == ["2.0.0", "2.0.0"]:
        return long[-1]
    scene.reset()
    scene.run("rollout").assert_ok()
    scene.hosts["streamer1"].air_from_the_release()
    return put_on_air(scene)


def test_changed_values_are_taken_at_work_and_go_back_and_a_wrong_one_changes_nothing(
    scene: Scene, class_id: str
) -> None:
    streamer, before = scene.hosts["streamer1"], seen(scene)
    text, pids = streamer.read(streamer.places.code_dir / ".env"), processes(scene)

    with scene.meanwhile(streamer1={"streamer_download_rate": "fast"}):
        refused = scene.run("rollout").assert_failed()
    assert "DOWNLOAD_RATE" in refused.output
    with scene.meanwhile(**CHANGED):
        checked = scene.run("rollout", "--check", "--diff").assert_ok()
        assert "MAX_VIDEO_NUM 1000 -> 900: live" in checked.output
        assert "+MAX_VIDEO_NUM=900" in checked.output
        assert seen(scene) == before, "neither the refused one nor the check has changed anything"
        played = scene.run("rollout").assert_ok()
        assert "TRANSCODING_TIME_OUT_S 3600" not in checked.output, "the setting wins over the old config"
        assert "ON_TRANSCODE_TIMEOUT refuse -> ecs: live" in played.output
        assert all(now != then for now, then in zip(seen(scene), before, strict=True))
        assert scene.run("rollout").assert_ok().changed == dict.fromkeys(CHANGED, 0)
        assert scene.run("verify").assert_ok().changed == dict.fromkeys(CHANGED, 0)

    scene.run("rollback", "-e", "release=2.0.0").assert_ok()
    assert (seen(scene), streamer.read(streamer.places.code_dir / ".env")) == (before, text)
    assert processes(scene) == pids
    goes_on(scene, class_id)


def test_up_and_back_and_back_again_and_a_class_on_air_notices_nothing(
    scene: Scene, class_id: str, newer_file: Path
) -> None:
    """From a release to the next one, back to it, and back to the old program."""
    streamer, newer = scene.hosts["streamer1"], ("-e", f"release={NEWER}", "-e", f"release_file={newer_file}")
    scene.run("rollout", *newer, "--tags", "prepare").assert_ok()
    assert "mood" in scene.run("rollout", *newer, "--check", "--diff").assert_ok().output
    scene.run("rollout", *newer).assert_ok()
    assert [host.answer() for host in scene.hosts.values()] == [NEWER, NEWER]
    assert streamer.airs_with() == NEWER
    assert streamer.rows(COLUMNS) == [[1]]
    goes_on(scene, class_id)

    with scene.without_vault():
        _back_and_back(scene, class_id)


def _back_and_back(scene: Scene, class_id: str) -> None:
    """To the release before, and to the old program, though the second way back is cut off in its middle.

    The inventory has no value of the vault meanwhile: all that a way back reads is on the hosts.
    """
    streamer, receiver = scene.hosts["streamer1"], scene.town.receiver
    back = scene.run("rollback", "-e", f"release={NEWER}").assert_ok()
    assert "lectern 2.0.0" in back.output, "it is said what it ends at"
    assert [host.answer() for host in scene.hosts.values()] == ["2.0.0", "2.0.0"]
    assert streamer.airs_with() == "2.0.0"
    assert streamer.rows(COLUMNS) == [[1]], "what the newer release has added stays"
    goes_on(scene, class_id)
    assert scene.run("verify").assert_ok().changed == {"teacher1": 0, "streamer1": 0}

    refused = scene.run("rollback", "-e", "release=2.0.0", "--limit", "streamer1").assert_failed()
    assert "even_on_air=true" in refused.output, "the old program would cut the class"
    scene.redis.publish("cancel", json.dumps({"cmd": "cancel", "class_id": class_id}))
    wait_until(lambda: receiver.publishes[class_id][-1].ended_at, description="the class is off the air")
    assert len(receiver.publishes[class_id]) == 1, "all of it was one session"
    first = ("-e", "release=2.0.0", "-e", "even_on_air=true")
    cut_off(scene, streamer, "rollback", STOPPED, "rollback", *first, release="2.0.0")
    assert [host.answer() for host in scene.hosts.values()] == ["2.0.0", ""], "only the streamer is silent"
    scene.run("rollback", *first).assert_ok()
    assert [one for host in ("teacher1", "streamer1") for one in scene.before[host].not_old(aired_since=True)] == []


def put_on_air(scene: Scene) -> str:
    """A class that begins as soon as it may."""
    record_id, class_id = scene.town.record("480P"), f"long-{time.time_ns()}"
    recording = scene.town.origin.root / f"{record_id}/{record_id}_480P.flv"
    longer = recording.with_name("longer.flv")  # the same again and again: rollouts and their way back take minutes
    argv = [str(scene.town.programs.ffmpeg), "-v", "error", "-stream_loop", str(LENGTH_S // 30), "-i", str(recording)]
    subprocess.run([*argv, "-c", "copy", str(longer)], check=True, timeout=120)
    longer.replace(recording)
    scene.book(class_id, record_id, "480P", starts_in_s=20, length_s=LENGTH_S)
    wait_until(
        lambda: scene.town.receiver.publishes.get(class_id),
        timeout_s=540,
        description="its recording is downloaded, and the class is on air",
    )
    return class_id


def goes_on(scene: Scene, class_id: str) -> None:
    """It is on air in the session in which it began, and bytes come."""
    (push,) = scene.town.receiver.publishes[class_id]
    assert push.ended_at is None
    before = push.bytes
    wait_until(lambda: push.bytes > before, description="bytes come")


def seen(scene: Scene) -> list[str]:
    """By which settings each host goes."""
    return [str(host.health()["settings"]["digest"]) for host in scene.hosts.values()]


def processes(scene: Scene) -> list[str]:
    return [host.ctl("pid", host.places.program).strip() for host in scene.hosts.values()]
