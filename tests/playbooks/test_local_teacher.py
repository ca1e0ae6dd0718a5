"""A teacher and a streamer of this machine: out with their bookings, up to the next release, and all the way back.

The tests go one way, each from where the one before has left the hosts; a class is on air from the first to the last.
"""

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
from tests.playbooks.hosts import old_world
from tests.playbooks.hosts.controller import SIGN_KEY, Played
from tests.playbooks.hosts.faults import ALTERED, STOPPED, cut_off
from tests.playbooks.hosts.host import differences
from tests.playbooks.hosts.scene import Scene, opened
from tests.stage import Town, wait_until
from tests.stage.ear import Ear
from tests.strategies import result
from town.oss_transcoder import Behaviour, OssTranscoder, Rule

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(2400),
]  # a run of a playbook takes seconds, many where other tests run beside it
DAY_S = 86400
LENGTH_S = 2400
RATE = "40000k"
"""Of downloads: a recording of that length is there at once."""
MOST_LINES = 398
"""What a person reads of a rollout on two hosts, at most: half of what all tasks together would print."""
UNCHANGED = {"teacher1": 0, "streamer1": 0}
OUT = ["2.0.0", "2.0.0"]
NEWER = "2.1.0"
CHANGED: dict[str, dict[str, Any]] = {
    "teacher1": {"teacher_transcoding_time_out": 90_000, "teacher_on_transcode_timeout": "ecs"},
    "streamer1": {"streamer_max_video_num": 900, "streamer_download_rate": "2000k"},
}
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
        found.stage("streamer1")  # the teacher's is staged by its playbook
        oss = OssTranscoder(town.origin.root, town.origin.url, found.redis_url, SIGN_KEY)
        oss.behave(Rule(Behaviour.SILENT))
        town.background.run(oss.start())
        found.vary(teacher1={"teacher_oss_transcode_url": oss.url}, streamer1={"streamer_download_rate": RATE})
        yield found
        town.background.run(oss.stop())


@pytest.fixture
def ear(scene: Scene) -> Iterator[Ear]:
    found = Ear(scene.redis_url, "order_result", "alarm")
    yield found
    found.close()


@pytest.fixture
def class_id(scene: Scene, ear: Ear) -> str:
    """A class on air, out of the release; a test that is run alone has the first one before it."""
    if answers(scene) != OUT:
        test_bookings_and_waiting_lists_go_out_by_what_the_runbook_says(scene, ear)
    found = named(scene, "long")
    wait_until(lambda: scene.town.receiver.publishes.get(found), timeout_s=540, description="the class is on air")
    return found


def test_bookings_and_waiting_lists_go_out_by_what_the_runbook_says(scene: Scene, ear: Ear) -> None:
    """From the old programs to the release: no class is lost, whichever program was told of it."""
    scene.reset()
    streamer, read_out = scene.hosts["streamer1"], scene.controller.read_out
    before, before_streamer = scene.before["teacher1"], scene.before["streamer1"]
    before_streamer.download_rate = RATE
    read_out("How do I roll out?", "rollout.yml", "--tags prepare").assert_ok()
    began = time.monotonic()
    _a_check_changes_nothing_and_says_what_would(scene)
    took_s = time.monotonic() - began
    assert before.not_old() + before_streamer.not_old() == [], "to prepare touches nothing that runs"

    start = time.time() + 30 + 3 * took_s  # behind the rollout: a class that is due while it runs is in its way
    soon, new, waits = (named(scene, name) for name in ("soon", "new", "waits"))
    streamer.keep_class(soon, "record/4940_22/video_4940_22.flv", scene.town.receiver.url(soon), start, start + 20)
    assert len(rolled_out(scene).output.splitlines()) <= MOST_LINES
    assert before.not_new() + before_streamer.not_new() == []
    streamer.air_from_the_release()
    book_long(scene, named(scene, "long"))
    assert rolled_out(scene).changed == UNCHANGED

    scene.book(new, scene.town.record("480P"), "480P", starts_in_s=DAY_S)
    scene.town.record("720P", record_id=6666)
    url = scene.town.origin.url_for("6666/6666_720P.flv")
    scene.publish("transcoding", result(transcode_video_url=url).to_json())
    for class_id in (new, "wait-t-1", "wait-t-2"):  # these two are of an old waiting list
        wait_until(lambda c: ear.answers[c], class_id, description=f"{class_id} is answered")
        assert ear.answers[class_id][0]["result"] == "success", ear.answers[class_id]
    scene.book(waits, 7777, "720P", starts_in_s=DAY_S, is_made=False)
    wait_until(lambda: scene.redis.lrange("7777_720P", 0, -1) == [waits], description="a class waits for its rendition")
    wait_until(
        lambda: any(one.ended_at is not None for one in scene.town.receiver.publishes.get(soon, [])),
        timeout_s=max(start + 20 - time.time(), 0) + 120,
        description="the class that the old program had booked is aired by the new one",
    )


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
        assert scene.run("rollout").assert_ok().changed == UNCHANGED
        verified_by_the_runbook(scene)

    scene.run("rollback", "-e", "release=2.0.0").assert_ok()
    assert (seen(scene), streamer.read(streamer.places.code_dir / ".env")) == (before, text)
    assert processes(scene) == pids
    goes_on(scene, class_id)


def test_up_to_the_next_release_and_back_and_a_class_on_air_notices_nothing(
    scene: Scene, class_id: str, newer_file: Path
) -> None:
    """The way back has no value of the vault: all that it reads is on the hosts."""
    teacher, streamer = scene.hosts.values()
    newer = ("-e", f"release={NEWER}", "-e", f"release_file={newer_file}")
    scene.run("rollout", *newer, "--limit", "streamer1", "--tags", "prepare").assert_ok()
    teacher.lay(Path(streamer.places.root / "releases" / NEWER))
    assert "mood" in scene.run("rollout", *newer, "--check", "--diff").assert_ok().output
    scene.run("rollout", *newer).assert_ok()
    assert answers(scene) == [NEWER, NEWER]
    assert streamer.airs_with() == NEWER
    assert streamer.rows(COLUMNS) == [[1]]
    goes_on(scene, class_id)

    with scene.without_vault():
        back = scene.run("rollback", "-e", f"release={NEWER}").assert_ok()
        assert "lectern 2.0.0" in back.output, "it is said what it ends at"
        assert answers(scene) == OUT
        assert streamer.airs_with() == "2.0.0"
        assert streamer.rows(COLUMNS) == [[1]], "what the newer release has added stays"
        goes_on(scene, class_id)
        verified_by_the_runbook(scene)


def test_back_to_the_old_programs_though_cut_off_and_out_again_by_what_the_runbook_says(
    scene: Scene, class_id: str
) -> None:
    """The class ends first: the old program would cut it. Each way is cut off in its middle, and typed again."""
    streamer, receiver = scene.hosts["streamer1"], scene.town.receiver
    before, before_streamer = scene.before["teacher1"], scene.before["streamer1"]
    soon, new, waits = (named(scene, name) for name in ("soon", "new", "waits"))
    with scene.without_vault():
        refused = scene.run("rollback", "-e", "release=2.0.0", "--limit", "streamer1").assert_failed()
        assert "even_on_air=true" in refused.output, "the old program would cut the class"
        scene.redis.publish("cancel", json.dumps({"cmd": "cancel", "class_id": class_id}))
        wait_until(lambda: receiver.publishes[class_id][-1].ended_at, description="the class is off the air")
        assert len(receiver.publishes[class_id]) == 1, "all of it was one session"
        first = ("-e", "release=2.0.0", "-e", "even_on_air=true")
        cut_off(scene, streamer, "rollback", STOPPED, "rollback", *first, release="2.0.0")
        assert answers(scene) == ["2.0.0", ""], "only the streamer is silent"
        rolled_back(scene)
        del before.keys["waiting:6666:720P"]  # its result has come
        assert before.not_old() + before_streamer.not_old(aired_since=True) == []
        new_list = scene.redis.lrange("waiting:7777:720P", 0, -1)
        assert new_list == [waits], "a list that is new goes back by the inverse rule"
        rows = {row[0] for row in streamer.rows("SELECT class_id FROM task_list")}
        assert {soon, new} <= rows, "what was written until the rollback is still there"
        assert rolled_back(scene).changed == UNCHANGED

    cut_off(scene, streamer, "open", ALTERED, "rollout", release="2.0.0")
    assert before.not_new() == []
    assert streamer.answer() == "", "it is half done"
    assert rolled_out(scene).changed["teacher1"] == 0, "the teacher, which is out, is not stopped once more"
    assert before.not_new() + before_streamer.not_new() == []
    restored = ("How do I restore the database?", "restore_database=true")
    scene.controller.read_out(*restored, HOST="streamer1").assert_ok()
    assert before_streamer.not_old(aired_since=True) == []


def rolled_out(scene: Scene) -> Played:
    return scene.controller.read_out("How do I roll out?", "rollout.yml").assert_ok()


def rolled_back(scene: Scene) -> Played:
    return scene.controller.read_out("How do I roll back?", "rollback.yml", HOST="streamer1,teacher1").assert_ok()


def verified_by_the_runbook(scene: Scene) -> None:
    """Each host is finished, and nothing was changed."""
    told = scene.controller.read_out("A rollout stopped half-way", "verify.yml", HOST="teacher1,streamer1").assert_ok()
    assert told.changed == UNCHANGED
    assert {one["host"] for one in told.tasks if "finished" in str(one.get("said"))} == {*UNCHANGED}


def _a_check_changes_nothing_and_says_what_would(scene: Scene) -> None:
    """Nothing of ours runs yet, so that every byte and every key can be compared."""

    def seen() -> dict[str, Any]:
        snapshots = {name: host.snapshot() for name, host in scene.hosts.items()}
        return {**snapshots, "keys": old_world.keys_of(scene.redis)}

    before = seen()
    played = scene.controller.read_out("How do I roll out?", "rollout.yml", "--check --diff").assert_ok()
    assert differences(before, seen()) == []
    for words in ("order_warn_time_out", "86400000", "+wget_path=", "institution_id VARCHAR(250)"):
        assert words in played.output


def named(scene: Scene, name: str) -> str:
    """The id of a class of this lay-out."""
    return f"{name}-{scene.hosts['streamer1'].tag}"


def book_long(scene: Scene, class_id: str) -> None:
    """A class that lasts for all tests, and begins as soon as it may."""
    record_id = scene.town.record("480P")
    recording = scene.town.origin.root / f"{record_id}/{record_id}_480P.flv"
    longer = recording.with_name("longer.flv")  # the same again and again: rollouts and their way back take minutes
    argv = [str(scene.town.programs.ffmpeg), "-v", "error", "-stream_loop", str(LENGTH_S // 30), "-i", str(recording)]
    subprocess.run([*argv, "-c", "copy", str(longer)], check=True, timeout=120)
    longer.replace(recording)
    scene.book(class_id, record_id, "480P", starts_in_s=20, length_s=LENGTH_S)


def goes_on(scene: Scene, class_id: str) -> None:
    """It is on air in the session in which it began, and bytes come."""
    (push,) = scene.town.receiver.publishes[class_id]
    assert push.ended_at is None
    before = push.bytes
    wait_until(lambda: push.bytes > before, description="bytes come")


def answers(scene: Scene) -> list[str]:
    return [host.answer() for host in scene.hosts.values()]


def seen(scene: Scene) -> list[str]:
    """By which settings each host goes."""
    return [str(host.health()["settings"]["digest"]) for host in scene.hosts.values()]


def processes(scene: Scene) -> list[str]:
    return [host.ctl("pid", host.places.program).strip() for host in scene.hosts.values()]
