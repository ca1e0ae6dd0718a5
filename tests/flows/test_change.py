"""A booked class is changed, also while it is on air; typed by hand, it is the same."""

import json
import time
from typing import Any

import pytest

from tests.stage import Stage, wait_until

pytestmark = pytest.mark.live
SOON_S = 30.0
"""Seconds that a busy machine may take, far more than the two that are promised."""


def asked(stage: Stage, class_id: str, **fields: object) -> dict[str, Any]:
    """The answer to a change."""
    stream = stage.channels["change_result"]
    before = len(stage.stream(stream))
    stage.town.redis.xadd(
        stage.channels["change"], {"body": json.dumps({"cmd": "change", "class_id": class_id, **fields})}
    )

    def answers() -> list[dict[str, Any]]:
        return [one for one in stage.stream(stream)[before:] if one["class_id"] == class_id]

    return wait_until(answers, timeout_s=SOON_S, description=f"the change of {class_id} is answered")[0]


def test_a_class_on_air_is_longer_has_another_recording_and_then_another_push_url(stage: Stage) -> None:
    """The same session goes on, without a gap, at the clock's position; another URL gets a new session at once."""
    first, second = stage.town.record(seconds=90), stage.town.record(seconds=90)
    cached = stage.book(stage.booking(second, starts_in_s=900))
    stage.answer(cached)
    booking = stage.booking(first, starts_in_s=8, length_s=20)
    class_id = stage.book(booking)
    stage.on_air(class_id)
    end = booking["end_time"] + 40
    assert asked(stage, class_id, end_time=end)["result"] == "success"
    other = stage.town.origin.url_for(f"{second}/{second}.flv")
    assert asked(stage, class_id, video_url=other)["result"] == "success"
    wait_until(lambda: time.time() > booking["end_time"] + 1, description="its first end is over")
    (push,) = stage.pushes(class_id)
    assert (push.ended_at, push.concurrent) == (None, False)
    assert push.largest_step_ms < 1000
    elsewhere = f"{class_id}-new"
    assert asked(stage, class_id, push_url=stage.town.receiver.url(elsewhere))["result"] == "success"
    stage.on_air(elsewhere, timeout_s=SOON_S)
    stage.off_air(class_id)
    assert (stage.num_cite("streamer1", str(first)), stage.num_cite("streamer1", str(second))) == (0, 2)
    assert asked(stage, class_id, end_time=time.time() + 2)["code"] == 410, "too soon to be surely done"
    assert asked(stage, class_id, end_time=time.time() + 16)["result"] == "success"
    stage.off_air(elsewhere)
    wait_until(lambda: stage.order(class_id)["state"] == "aired", description="the teacher knows that it was aired")
    assert stage.num_cite("streamer1", str(second)) == 1
    day = time.strftime("%Y-%m-%d", time.localtime(booking["start_time"]))
    told = stage.lectern("teacher", "report", "--from", day, "--format", "json")
    (line,) = [one for one in json.loads(told.stdout)["classes"] if one["class_id"] == class_id]
    taken = [one for name in (class_id, elsewhere) for one in stage.pushes(name)]
    received_s = sum((one.last_timestamp_ms or 0) - (one.first_timestamp_ms or 0) for one in taken) / 1000
    assert line["sent_s"] == pytest.approx(received_s, abs=1.0)


def test_a_change_by_hand_is_planned_and_sent_and_answered(stage: Stage) -> None:
    """What a dry run prints is what would be written, and nothing is."""
    booking = stage.booking(stage.town.record(), starts_in_s=900)
    class_id = stage.book(booking)
    stage.answer(class_id)
    wait_until(lambda: stage.order(class_id)["answered_at"], description="it is noted that it was answered")
    before = stage.order(class_id)
    end = str(booking["end_time"] + 600)
    planned = stage.lectern("teacher", "change", class_id, "--end", end, "--dry-run")
    assert f"class_id: {class_id}^1" in planned.stdout, planned.stderr
    assert stage.order(class_id) == before
    done = stage.lectern("teacher", "change", class_id, "--end", end, "--wait", "--json")
    assert (done.returncode, json.loads(done.stdout)["result"]) == (0, "success"), done.stderr
    assert stage.order(class_id)["end_time"] == float(end)
    refused = stage.lectern("teacher", "change", class_id, "--end", "1000", "--wait")
    assert (refused.returncode, "fail, 400" in refused.stdout) == (1, True)
    assert stage.lectern("teacher", "change", class_id).returncode == 2
    assert stage.lectern("teacher", "change", class_id, "--end", "soon").returncode == 2
