"""A teacher and a streamer of this machine: bookings, waiting lists and settings go out with it, and back."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.playbooks.conftest import Figure
from tests.playbooks.hosts import old_world
from tests.playbooks.hosts.controller import SIGN_KEY
from tests.playbooks.hosts.host import differences, downtime_s
from tests.playbooks.hosts.scene import Scene, opened
from tests.playbooks.hosts.wholly import NEW_VERSION
from tests.stage import Town, wait_until
from tests.stage.ear import Ear
from town.oss_transcoder import Behaviour, OssTranscoder, Rule

pytestmark = pytest.mark.timeout(1800)  # a run of a playbook takes seconds, many where other tests run beside it
DAY_S = 86400
ONLY = ("--limit", "teacher1")


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
    scene.reset()
    host, before, read_out = scene.host("teacher1"), scene.before["teacher1"], scene.controller.read_out
    read_out("How do I roll out?", "rollout.yml", "--tags prepare").assert_ok()
    read_out("How do I roll out?", "rollout.yml", "--check --diff").assert_ok()
    assert before.not_old() == []

    with host.probed() as changes:
        read_out("How do I roll out?", "rollout.yml").assert_ok()
    figure(f"downtime of the teacher: {downtime_s(changes, NEW_VERSION):.2f} s")
    assert before.not_new() == []
    assert scene.before["streamer1"].not_new() == []
    assert _config_lines(host.read(host.places.code_dir / "config/default.json"))
    assert read_out("How do I roll out?", "rollout.yml").assert_ok().changed == {"teacher1": 0, "streamer1": 0}
    told = read_out("A rollout stopped half-way", "verify.yml", HOST="teacher1").assert_ok()
    assert "finished" in told.output

    _a_class_is_booked_and_aired(scene, ear)
    _classes_of_an_old_waiting_list_go_on(scene, ear)
    waits = _book(scene, 7777, "720P", starts_in_s=DAY_S)
    wait_until(lambda: scene.redis.lrange("7777_720P", 0, -1) == [waits], description="a class waits for its rendition")

    with host.probed() as changes:
        read_out("How do I roll back?", "rollback.yml", HOST="streamer1,teacher1").assert_ok()
    figure(f"downtime of the teacher's rollback: {downtime_s(changes, host.places.old_version):.2f} s")
    del before.keys["waiting:6666:720P"]  # its result has come
    assert before.not_old() == []
    assert scene.before["streamer1"].not_old(aired_since=True) == []
    assert scene.redis.lrange("waiting:7777:720P", 0, -1) == [waits], "a list that is new goes back by the inverse rule"

    _publish(scene, "transcoding", _result(scene, 7777))
    wait_until(lambda: ear.answers[waits], description="the old teacher answers the class that waits")
    assert ear.answers[waits][-1]["streamer"] == "old"

    read_out("How do I roll out?", "rollout.yml").assert_ok()
    assert before.not_new() == []
    read_out("How do I restore the database?", "restore_database=true", HOST="streamer1").assert_ok()
    kept = scene.host("streamer1").run(["find", str(host.places.base.parent), "-name", "rows-since.json"]).stdout
    assert kept.count(b"rows-since.json") == 1
    assert scene.before["streamer1"].not_old(aired_since=True) == []


def _a_class_is_booked_and_aired(scene: Scene, ear: Ear) -> None:
    class_id = _book(scene, scene.town.record("480P"), "480P", starts_in_s=12, listed=("480P",))
    wait_until(lambda: ear.answers[class_id], timeout_s=60, description="a new booking is answered")
    assert ear.answers[class_id][0]["result"] == "success"
    publishes = scene.town.receiver.publishes
    wait_until(
        lambda: [one for one in publishes.get(class_id, []) if one.ended_at is not None],
        timeout_s=90,
        description="the new class is aired to its end",
    )


def _classes_of_an_old_waiting_list_go_on(scene: Scene, ear: Ear) -> None:
    scene.town.record("720P", record_id=6666)
    _publish(scene, "transcoding", _result(scene, 6666))
    for class_id in ("wait-t-1", "wait-t-2"):
        wait_until(lambda c=class_id: ear.answers[c], timeout_s=60, description=f"{class_id} is answered")  # type: ignore[misc]
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


def test_a_name_that_is_taken_in_redis_is_found_before_the_stop(scene: Scene) -> None:
    scene.reset()
    host, keys = scene.host("teacher1"), old_world.keys_of(scene.redis)
    scene.redis.rpush("6666_720P", "somebody")
    played = scene.run("rollout", *ONLY).assert_failed()

    assert "6666_720P" in played.output
    assert host.answer() == host.places.old_version
    now = old_world.keys_of(scene.redis)
    assert differences(keys, {key: found for key, found in now.items() if key != "6666_720P"}) == []


def test_a_check_of_a_teacher_changes_no_key_and_no_file(scene: Scene) -> None:
    scene.reset()
    host = scene.host("teacher1")
    before, keys = host.snapshot(), old_world.keys_of(scene.redis)
    played = scene.run("rollout", *ONLY, "--check", "--diff").assert_ok()

    assert differences(before, host.snapshot()) == []
    assert differences(keys, old_world.keys_of(scene.redis)) == []
    assert "order_warn_time_out" in played.output
    assert "86400000" in played.output
