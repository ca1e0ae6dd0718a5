"""A teacher and a streamer of this machine: bookings, waiting lists and settings go out with them, and back."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.playbooks.conftest import Figure
from tests.playbooks.hosts import old_world
from tests.playbooks.hosts.controller import SIGN_KEY, Played
from tests.playbooks.hosts.faults import ALTERED, cut_off
from tests.playbooks.hosts.host import Facts, Host, differences, downtime_s
from tests.playbooks.hosts.scene import Scene, opened
from tests.playbooks.hosts.wholly import NEW_VERSION
from tests.stage import Town, wait_until
from tests.stage.ear import Ear
from town.oss_transcoder import Behaviour, OssTranscoder, Rule

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(1800),
]  # a run of a playbook takes seconds, many where other tests run beside it
DAY_S = 86400
MOST_LINES = 398
"""What a person reads of a rollout on two hosts, at most: half of what all tasks together would print."""


@pytest.fixture(scope="module")
def scene(town: Town, release_file: Path) -> Iterator[Scene]:
    with opened(town, release_file, "teacher1", "streamer1") as found:
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


def test_bookings_and_waiting_lists_go_out_and_back_by_what_the_runbook_says(
    scene: Scene, ear: Ear, figure: Figure
) -> None:
    """Out and back and out again, of a teacher and its streamer: no class is lost, whichever program was told of it."""
    scene.reset()
    teacher, streamer, read_out = scene.host("teacher1"), scene.host("streamer1"), scene.controller.read_out
    before, before_streamer = scene.before["teacher1"], scene.before["streamer1"]
    read_out("How do I roll out?", "rollout.yml", "--tags prepare").assert_ok()
    began = time.monotonic()
    _a_check_changes_nothing_and_says_what_would(scene)
    took_s = time.monotonic() - began
    assert before.not_old() == []
    assert before_streamer.not_old() == [], "to prepare touches nothing that runs"

    start = time.time() + 30 + 3 * took_s  # behind the rollout: a class that is due while it runs is in its way
    soon = f"soon-{streamer.tag}"
    streamer.book(soon, "record/4940_22/video_4940_22.flv", scene.town.receiver.url(soon), start, start + 20)
    with teacher.probed() as of_teacher, streamer.probed() as of_streamer:
        out = read_out("How do I roll out?", "rollout.yml").assert_ok()
    lines = out.output.splitlines()
    figure(f"lines of a rollout on two hosts: {len(lines)}")
    assert len(lines) <= MOST_LINES
    said = [one for task in out.tasks if task["how"] == "ok" for one in task["said"]]
    assert [one for one in said if f"    {one}" not in lines] == [], "each step's answer stands under its task"
    figure(f"downtime of the teacher: {downtime_s(of_teacher, NEW_VERSION):.2f} s")
    figure(f"downtime of the streamer: {downtime_s(of_streamer, NEW_VERSION):.2f} s")
    figure(f"steps of the streamer: {'; '.join(_steps(out, 'streamer1'))}")
    assert before.not_new() == []
    assert before_streamer.not_new() == []
    assert _config_lines(teacher.read(teacher.places.code_dir / "config/default.json"))
    assert read_out("How do I roll out?", "rollout.yml").assert_ok().changed == {"teacher1": 0, "streamer1": 0}
    told = read_out("A rollout stopped half-way", "verify.yml", HOST="teacher1,streamer1").assert_ok()
    assert told.changed == {"teacher1": 0, "streamer1": 0}
    assert {one["host"] for one in told.tasks if "finished" in str(one.get("said"))} == {"teacher1", "streamer1"}

    new = _a_class_is_booked_and_aired(scene, ear)
    _classes_of_an_old_waiting_list_go_on(scene, ear)
    waits = _book(scene, 7777, "720P", starts_in_s=DAY_S)
    wait_until(lambda: scene.redis.lrange("7777_720P", 0, -1) == [waits], description="a class waits for its rendition")
    _is_aired_to_its_end(
        scene,
        soon,
        timeout_s=max(start + 20 - time.time(), 0) + 120,
        description="the class that the old program had booked is aired by the new one",
    )

    with teacher.probed() as of_teacher, streamer.probed() as of_streamer:
        read_out("How do I roll back?", "rollback.yml", HOST="streamer1,teacher1").assert_ok()
    figure(f"downtime of the teacher's rollback: {downtime_s(of_teacher, teacher.places.old_version):.2f} s")
    figure(f"downtime of the streamer's rollback: {downtime_s(of_streamer, streamer.places.old_version):.2f} s")
    del before.keys["waiting:6666:720P"]  # its result has come
    assert before.not_old() == []
    assert before_streamer.not_old(aired_since=True) == []
    assert scene.redis.lrange("waiting:7777:720P", 0, -1) == [waits], "a list that is new goes back by the inverse rule"
    rows = {row[0] for row in streamer.rows("SELECT class_id FROM task_list")}
    assert {soon, new} <= rows, "what was written until the rollback is still there"
    again = read_out("How do I roll back?", "rollback.yml", HOST="streamer1,teacher1").assert_ok()
    assert again.changed == {"teacher1": 0, "streamer1": 0}

    _publish(scene, "transcoding", _result(scene, 7777))
    wait_until(lambda: ear.answers[waits], description="the old teacher answers the class that waits")
    assert ear.answers[waits][-1]["streamer"] == "old"
    _the_old_program_airs(scene, streamer)

    _a_rollout_that_was_cut_off_in_the_streamers_window_goes_on(scene)
    assert before.not_new() == []
    assert before_streamer.not_new() == []
    read_out("How do I restore the database?", "restore_database=true", HOST="streamer1").assert_ok()
    kept = streamer.run(["find", str(streamer.places.base.parent), "-name", "rows-since.json"]).stdout
    assert kept.count(b"rows-since.json") == 1
    assert before_streamer.not_old(aired_since=True) == []


def _a_check_changes_nothing_and_says_what_would(scene: Scene) -> None:
    """Nothing of ours runs yet, so that every byte and every key can be compared."""
    before, keys = _snapshots(scene), old_world.keys_of(scene.redis)
    played = scene.controller.read_out("How do I roll out?", "rollout.yml", "--check --diff").assert_ok()

    assert differences(before, _snapshots(scene)) == []
    assert differences(keys, old_world.keys_of(scene.redis)) == []
    for words in ("order_warn_time_out", "86400000", "+wget_path=", "institution_id VARCHAR(250)"):
        assert words in played.output


def _snapshots(scene: Scene) -> dict[str, Facts]:
    return {name: host.snapshot() for name, host in scene.hosts.items()}


def _a_rollout_that_was_cut_off_in_the_streamers_window_goes_on(scene: Scene) -> None:
    """The playbook, typed again, does the rest of it, and does not stop the teacher, which is out, once more."""
    streamer = scene.host("streamer1")
    cut_off(scene, streamer, "open", ALTERED, "rollout")
    assert scene.before["teacher1"].not_new() == []
    assert streamer.answer() == "", "it is half done"
    assert scene.controller.read_out("How do I roll out?", "rollout.yml").assert_ok().changed["teacher1"] == 0


def _the_old_program_airs(scene: Scene, host: Host) -> None:
    class_id, now = f"back-{host.tag}", time.time()
    host.book(class_id, "record/4940_22/video_4940_22.flv", scene.town.receiver.url(class_id), now, now + 10)
    publishes = scene.town.receiver.publishes
    wait_until(lambda: publishes.get(class_id), description="the old program airs a class from its old file")
    wait_until(lambda: publishes[class_id][-1].ended_at, description="the class is over")


def _is_aired_to_its_end(scene: Scene, class_id: str, *, timeout_s: float, description: str) -> None:
    publishes = scene.town.receiver.publishes
    wait_until(
        lambda: [one for one in publishes.get(class_id, []) if one.ended_at is not None],
        timeout_s=timeout_s,
        description=description,
    )


def _steps(played: Played, host: str) -> list[str]:
    own = (task for task in played.tasks if task["host"] == host)
    return [f"{one['step']}: {one['seconds']:.2f}" for task in own for one in task.get("steps", [])]


def _a_class_is_booked_and_aired(scene: Scene, ear: Ear) -> str:
    class_id = _book(scene, scene.town.record("480P"), "480P", starts_in_s=12, listed=("480P",))
    wait_until(lambda: ear.answers[class_id], description="a new booking is answered")
    assert ear.answers[class_id][0]["result"] == "success"
    _is_aired_to_its_end(scene, class_id, timeout_s=90, description="the new class is aired to its end")
    return class_id


def _classes_of_an_old_waiting_list_go_on(scene: Scene, ear: Ear) -> None:
    scene.town.record("720P", record_id=6666)
    _publish(scene, "transcoding", _result(scene, 6666))
    for class_id in ("wait-t-1", "wait-t-2"):
        wait_until(lambda c: ear.answers[c], class_id, description=f"{class_id} is answered")
        assert ear.answers[class_id][0]["result"] == "success", ear.answers[class_id]


def _publish(scene: Scene, channel: str, message: dict[str, Any]) -> None:
    assert scene.redis.publish(channel, json.dumps(message)) > 0, f"nobody listens on {channel}"


def _result(scene: Scene, record_id: int) -> dict[str, Any]:
    url = scene.town.origin.url_for(f"{record_id}/{record_id}_720P.flv")
    rendition = {"record_id": record_id, "video_resolution": "720P", "transcode_video_url": url}
    return {"cmd": "transcoding", "result": "sucess", "type": "oss", **rendition}


def _book(scene: Scene, record_id: int, resolution: str, *, starts_in_s: float, listed: tuple[str, ...] = ()) -> str:
    class_id, start, url_for = f"new-{time.time_ns()}", time.time() + starts_in_s, scene.town.origin.url_for
    booking = {
        "cmd": "order",
        "class_id": class_id,
        "institution_id": "i-7",
        "record_id": record_id,
        "video_url": url_for(f"{record_id}/{record_id}.flv"),
        "video_resolution": resolution,
        "video_url_list": {one: url_for(f"{record_id}/{record_id}_{one}.flv") for one in listed},
        "start_time": start,
        "end_time": start + 6,
        "push_url": scene.town.receiver.url(class_id),
    }
    _publish(scene, "order", booking)
    return class_id


def _config_lines(content: bytes) -> bool:
    """Every line of the old config but the one that is changed stands as it was, a comma at its end aside."""
    kept = [one for one in old_world.CONFIG.splitlines() if "%" not in one and "order_warn_time_out" not in one]
    text = content.decode()
    return all(line.rstrip(",") in text for line in kept)


def test_all_that_is_in_the_way_of_one_host_is_said_at_once_and_no_host_is_touched(scene: Scene) -> None:
    """Also the teacher, which nothing is in the way of, and which would be the first to be stopped."""
    scene.reset()
    streamer, now = scene.host("streamer1"), int(time.time())
    on_air = ("live-1", "http://origin.example/7001/7001.flv", "rtmp://live.example/live/live-1", now - 60, now + 600)
    booked = "INSERT INTO task_list (class_id, video_url, push_url, start_time, end_time, status)"
    streamer.alter(f"{booked} VALUES (?, ?, ?, ?, ?, 1)", *on_air)
    streamer.alter("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    streamer.alter("INSERT INTO alembic_version VALUES ('streamer_9999')")
    streamer.run(["truncate", "-s", "15T", str(streamer.places.code_dir / "core.12")])
    before, keys = _snapshots(scene), old_world.keys_of(scene.redis)

    wrong = scene.redis_url.replace(":made-up", ":wrong-password-made-up")
    with scene.meanwhile(streamer1={"streamer_redis_url": wrong}):
        played = scene.run("rollout").assert_failed()

    said = " ".join(" ".join(played.failures()).split())
    for words in (
        *("class 'live-1'", "on air or due"),
        *("the backup needs", "are free"),
        "a newer release wrote it (revision streamer_9999",
        "Redis refuses the login",
    ):
        assert words in said
    assert "wrong-password" not in played.output
    assert any("Nothing is in the way" in task for task in played.done("teacher1"))
    assert not any("Teacher 1" in task for task in played.done("teacher1"))

    changed = [one for one in differences(before, _snapshots(scene)) if "/releases" not in one]
    roots = tuple(f"{name} files {host.places.root}:" for name, host in scene.hosts.items())
    assert [one for one in changed if not one.startswith(roots)] == [], "but that a release may be staged now"
    assert differences(keys, old_world.keys_of(scene.redis)) == []
    for name, host in scene.hosts.items():
        assert host.answer() == host.places.old_version
        assert host.states() == scene.before[name].states
