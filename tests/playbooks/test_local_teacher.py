"""A teacher and a streamer of this machine: bookings, waiting lists and settings go out with them, and back."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.playbooks.hosts import old_world
from tests.playbooks.hosts.controller import SIGN_KEY, Played
from tests.playbooks.hosts.faults import ALTERED, cut_off
from tests.playbooks.hosts.host import differences
from tests.playbooks.hosts.scene import Scene, opened
from tests.stage import Town, wait_until
from tests.stage.ear import Ear
from tests.strategies import result
from town.oss_transcoder import Behaviour, OssTranscoder, Rule

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(1800),
]  # a run of a playbook takes seconds, many where other tests run beside it
DAY_S = 86400
MOST_LINES = 398
"""What a person reads of a rollout on two hosts, at most: half of what all tasks together would print."""
UNCHANGED = {"teacher1": 0, "streamer1": 0}


@pytest.fixture(scope="module")
def scene(town: Town, release_file: Path) -> Iterator[Scene]:
    with opened(town, release_file, "teacher1", "streamer1") as found:
        found.stage("streamer1")  # the teacher's is staged by its playbook
        oss = OssTranscoder(town.origin.root, town.origin.url, found.redis_url, SIGN_KEY)
        oss.behave(Rule(Behaviour.SILENT))
        town.background.run(oss.start())
        found.vary(teacher1={"teacher_oss_transcode_url": oss.url})
        yield found
        town.background.run(oss.stop())


@pytest.fixture
def ear(scene: Scene) -> Iterator[Ear]:
    found = Ear(scene.redis_url, "order_result", "alarm")
    yield found
    found.close()


def test_bookings_and_waiting_lists_go_out_and_back_by_what_the_runbook_says(scene: Scene, ear: Ear) -> None:
    """Out and back and out again, of a teacher and its streamer: no class is lost, whichever program was told of it."""
    scene.reset()
    streamer, read_out = scene.hosts["streamer1"], scene.controller.read_out
    before, before_streamer = scene.before["teacher1"], scene.before["streamer1"]

    def rolled_out() -> Played:
        return read_out("How do I roll out?", "rollout.yml").assert_ok()

    def rolled_back() -> Played:
        return read_out("How do I roll back?", "rollback.yml", HOST="streamer1,teacher1").assert_ok()

    def both_are_new() -> None:
        assert before.not_new() + before_streamer.not_new() == []

    read_out("How do I roll out?", "rollout.yml", "--tags prepare").assert_ok()
    began = time.monotonic()
    _a_check_changes_nothing_and_says_what_would(scene)
    took_s = time.monotonic() - began
    assert before.not_old() + before_streamer.not_old() == [], "to prepare touches nothing that runs"

    start = time.time() + 30 + 3 * took_s  # behind the rollout: a class that is due while it runs is in its way
    soon, new, waits = (f"{name}-{streamer.tag}" for name in ("soon", "new", "waits"))
    streamer.keep_class(soon, "record/4940_22/video_4940_22.flv", scene.town.receiver.url(soon), start, start + 20)
    assert len(rolled_out().output.splitlines()) <= MOST_LINES
    both_are_new()
    assert rolled_out().changed == UNCHANGED
    told = read_out("A rollout stopped half-way", "verify.yml", HOST="teacher1,streamer1").assert_ok()
    assert told.changed == UNCHANGED
    assert {one["host"] for one in told.tasks if "finished" in str(one.get("said"))} == {*UNCHANGED}

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

    rolled_back()
    del before.keys["waiting:6666:720P"]  # its result has come
    assert before.not_old() + before_streamer.not_old(aired_since=True) == []
    assert scene.redis.lrange("waiting:7777:720P", 0, -1) == [waits], "a list that is new goes back by the inverse rule"
    rows = {row[0] for row in streamer.rows("SELECT class_id FROM task_list")}
    assert {soon, new} <= rows, "what was written until the rollback is still there"
    assert rolled_back().changed == UNCHANGED

    cut_off(scene, streamer, "open", ALTERED, "rollout")
    assert before.not_new() == []
    assert streamer.answer() == "", "it is half done"
    assert rolled_out().changed["teacher1"] == 0, "the teacher, which is out, is not stopped once more"
    both_are_new()
    read_out("How do I restore the database?", "restore_database=true", HOST="streamer1").assert_ok()
    assert before_streamer.not_old(aired_since=True) == []


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
