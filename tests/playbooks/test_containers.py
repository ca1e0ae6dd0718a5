"""Debian hosts with sshd, sudo and supervisor: provisioned, rolled out onto, cut off, and brought back."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.playbooks.conftest import Build, Figure
from tests.playbooks.hosts.fleet import Fleet
from tests.playbooks.hosts.host import differences, downtime_s
from tests.playbooks.hosts.wholly import NEW_VERSION
from tests.stage import wait_until
from tests.stage.ear import Ear
from tests.stage.leases import granting

pytestmark = [pytest.mark.night, pytest.mark.timeout(1800)]  # the first one builds the image of the hosts
PYTHON = "3.13"
"""Of the Debian in compose.yml."""
ALL = ("teacher", "streamer1", "streamer2")


@pytest.fixture(scope="module")
def hosts(fleet: Fleet, built_release: Build) -> Fleet:
    fleet.use(built_release(PYTHON))
    fleet.serve_recordings(["6666/6666_720P.flv", "8001/8001_480P.flv"])
    return fleet


@pytest.fixture
def ear(hosts: Fleet) -> Iterator[Ear]:
    found = Ear(hosts.redis_url, "order_result", "alarm")
    yield found
    found.close()


def test_hosts_go_out_one_after_the_other_and_back(hosts: Fleet, ear: Ear, figure: Figure) -> None:
    hosts.reset()
    assert hosts.run("provision").assert_ok().changed == dict.fromkeys(("control1", *ALL), 0)
    hosts.containers["streamer2"].run(["apt-get", "-qq", "remove", "-y", "wget"])
    first, teacher = hosts.hosts["streamer1"], hosts.hosts["teacher"]

    with first.probed() as streamer_changes, teacher.probed() as teacher_changes:
        hosts.run("rollout").assert_ok()
    for name, changes in (("teacher", teacher_changes), ("streamer1", streamer_changes)):
        figure(f"downtime of {name}: {downtime_s(changes, NEW_VERSION):.2f} s")
    assert [one for name in ALL for one in hosts.before[name].not_new()] == []
    assert hosts.run("rollout").assert_ok().changed == dict.fromkeys(ALL, 0)

    _a_class_is_booked_and_aired(hosts, ear)
    _publish(hosts, "transcoding", _result(6666))
    for class_id in ("wait-t-1", "wait-t-2"):
        assert _answer(ear, class_id)["result"] == "success", "an old waiting list is honoured"

    with first.probed() as streamer_changes, teacher.probed() as teacher_changes:
        hosts.run("rollback").assert_ok()
    for name, changes in (("teacher", teacher_changes), ("streamer1", streamer_changes)):
        figure(f"downtime of {name} in the rollback: {downtime_s(changes, hosts.hosts[name].places.old_version):.2f} s")
    del hosts.before["teacher"].keys["waiting:6666:720P"]  # its result has come
    assert [one for name in ALL for one in hosts.before[name].not_old(aired_since=True)] == []


def _a_class_is_booked_and_aired(hosts: Fleet, ear: Ear) -> None:
    class_id, start = "new-1", time.time() + 15
    booking = {
        "cmd": "order",
        "class_id": class_id,
        "institution_id": "i-7",
        "record_id": 8001,
        "video_url": "http://control:8080/8001/8001.flv",
        "video_resolution": "480P",
        "video_url_list": {"480P": "http://control:8080/8001/8001_480P.flv"},
        "start_time": start,
        "end_time": start + 6,
        "push_url": hosts.receive(class_id, 1935),
    }
    _publish(hosts, "order", booking)
    answer = _answer(ear, class_id)
    assert answer["result"] == "success", answer
    wait_until(lambda: hosts.received_s(class_id) > 4, description="the new class is aired")


def _answer(ear: Ear, class_id: str) -> dict[str, Any]:
    wait_until(lambda: ear.answers[class_id], description=f"{class_id} is answered")
    return ear.answers[class_id][0]


def _result(record_id: int) -> dict[str, Any]:
    url = f"http://control:8080/{record_id}/{record_id}_720P.flv"
    rendition = {"record_id": record_id, "video_resolution": "720P", "transcode_video_url": url}
    return {"cmd": "transcoding", "result": "sucess", "type": "oss", **rendition}


def _publish(hosts: Fleet, channel: str, message: dict[str, Any]) -> None:
    assert hosts.redis.publish(channel, json.dumps(message)) > 0, f"nobody listens on {channel}"


def test_a_window_ends_by_itself_though_the_controller_lost_its_host_and_the_next_host_is_not_begun(
    hosts: Fleet,
) -> None:
    streamers = ("streamer1", "streamer2")
    hosts.reset(*streamers)
    first, second = hosts.hosts["streamer1"], hosts.hosts["streamer2"].snapshot()
    hosts.controller.cut = first.container.cut
    fault = {"kind": "cut", "task": "Streamer 5", "command": hosts.controller.cut}
    # As by a teacher that was rolled out before them: without a lease, they are not well for long.
    with granting(hosts.redis, streamers, key="streamers", stream="streamer:{}"):
        played = hosts.run("rollout", "--limit", "streamers", fault=fault)
        first.container.mend()

        assert played.fault_fired
        assert played.exit_code != 0
        assert any("unreachable" in one["how"] for one in played.tasks)
        assert differences(second, hosts.hosts["streamer2"].snapshot()) == []
        assert hosts.before["streamer2"].not_old() == []
        first.settle()
        hosts.run("rollout", "--limit", "streamers").assert_ok()
        assert [one for name in streamers for one in hosts.before[name].not_new()] == []
