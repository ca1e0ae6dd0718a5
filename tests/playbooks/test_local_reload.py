"""A change of inventory values that needs no restart, on a teacher and a streamer at work: a class on air goes on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.playbooks.hosts.local import LocalHost
from tests.playbooks.hosts.scene import Scene, opened
from tests.playbooks.test_local_upgrade import booked, goes_on
from tests.stage import Town, wait_until

pytestmark = [pytest.mark.live, pytest.mark.timeout(1800)]
CHANGED: dict[str, dict[str, Any]] = {
    "teacher1": {"teacher_transcoding_time_out": 90_000, "teacher_on_transcode_timeout": "ecs"},
    "streamer1": {"streamer_max_video_num": 900, "streamer_download_rate": "2000k"},
}


@pytest.fixture(scope="module")
def scene(town: Town, release_file: Path) -> Iterator[Scene]:
    with opened(town, release_file, *CHANGED) as found:
        yield found


def test_changed_values_are_taken_at_work_and_go_back_and_a_wrong_one_changes_nothing(scene: Scene) -> None:
    scene.reset()
    scene.run("rollout").assert_ok()
    streamer = scene.host("streamer1")
    class_id = booked(scene, 900)
    wait_until(lambda: scene.town.receiver.publishes.get(class_id), timeout_s=240, description="the class is on air")
    before = seen(scene)
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


def seen(scene: Scene) -> list[str]:
    """By which settings each host goes."""
    return [str(health(host)["settings"]["digest"]) for host in scene.hosts.values()]


def health(host: LocalHost) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"http://127.0.0.1:{host.places.port}/health", trust_env=False).json()
    return found


def processes(scene: Scene) -> list[str]:
    return [host.ctl("pid", host.places.program).strip() for host in scene.hosts.values()]
