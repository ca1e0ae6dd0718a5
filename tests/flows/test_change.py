"""A booked class is changed, also while it is on air; typed by hand, it is the same."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from flows import host as hall
from flows.host import TeacherHost
from flows.teacher import bookings as changing
from lectern.errors import TryAgain
from lectern.playout import flv
from tests.stage import Stage, wait_until
from town import recordings

pytestmark = pytest.mark.live
SOON_S, VIDEO = 30.0, 9
"""Seconds that a busy machine may take, far more than the two that are promised; and the kind of an FLV tag."""


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


def day(booking: dict[str, Any]) -> str:
    """The day on which a class begins, as it is typed."""
    return time.strftime("%Y-%m-%d", time.localtime(booking["start_time"]))


def another_recording(stage: Stage) -> int:
    """A record whose pictures have another size than those of all others."""
    number, ffmpeg = stage.town.record(), stage.town.programs.ffmpeg
    file = stage.town.origin.root / str(number) / f"{number}.flv"
    file.unlink()
    stage.town.background.run(recordings.make(ffmpeg, file, seconds=90, width=320, height=240))
    return number


def first_pictures(file: Path) -> bytes:
    """What an FLV file says of its pictures, before the first of them."""
    data, at = file.read_bytes(), flv.HEAD_BYTES
    while (head := flv.tag_head(data, at)) is not None:
        if head.kind == VIDEO:
            return data[at + flv.TAG_HEAD_BYTES : at + flv.TAG_HEAD_BYTES + head.size]
        at += head.whole
    raise AssertionError(f"{file} has no pictures")


def test_a_class_on_air_is_longer_has_another_recording_and_then_another_push_url(stage: Stage) -> None:
    """The same session goes on, without a gap, at the clock's position; another URL gets a new session at once."""
    first, second = stage.town.record(seconds=90), another_recording(stage)
    cached = stage.book(stage.booking(second, starts_in_s=900))
    stage.answer(cached)
    booking = stage.booking(first, starts_in_s=8, length_s=20)
    class_id = stage.book(booking)
    stage.on_air(class_id)
    end = booking["end_time"] + 40
    assert asked(stage, class_id, end_time=end)["result"] == "success"
    other = stage.town.origin.url_for(f"{second}/{second}.flv")
    assert asked(stage, class_id, video_url=other)["result"] == "success"
    pictures = first_pictures(stage.town.origin.root / str(second) / f"{second}.flv")
    (push,) = stage.pushes(class_id)
    received = stage.town.receiver.root / push.file
    wait_until(lambda: pictures in received.read_bytes(), timeout_s=SOON_S, description="the other recording is sent")
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
    told = stage.lectern("teacher", "report", "--from", day(booking), "--format", "json")
    (line,) = [one for one in json.loads(told.stdout)["classes"] if one["class_id"] == class_id]
    taken = [one for name in (class_id, elsewhere) for one in stage.pushes(name)]
    received_s = sum((one.last_timestamp_ms or 0) - (one.first_timestamp_ms or 0) for one in taken) / 1000
    assert line["sent_s"] == pytest.approx(received_s, abs=1.0)
    assert stage.lectern("teacher", "report", "--from", "yesterday").returncode == 2


def test_a_class_that_is_moved_to_another_time_has_its_run_there(stage: Stage) -> None:
    """The run of its old time is cancelled, and the class is not; nor if it is moved back."""
    booking = stage.booking(stage.town.record(), starts_in_s=1800)
    class_id = stage.book(booking)
    stage.answer(class_id)
    wait_until(lambda: stage.runs("streamer1", f"broadcast {class_id}"), description="its run is there")
    later = booking["start_time"] + 3600
    assert asked(stage, class_id, start_time=later, end_time=later + 60)["result"] == "success"

    def states() -> list[str]:
        return sorted(str(one["state_name"]) for one in stage.runs("streamer1", f"broadcast {class_id}"))

    wait_until(
        lambda: states() == ["Cancelled", "Scheduled"],
        timeout_s=90,  # a Prefect whose database is locked is asked again
        description="it has a run of its time",
    )
    assert stage.airing("streamer1", class_id)["state"] == "ready"
    first = booking["start_time"]
    assert asked(stage, class_id, start_time=first, end_time=booking["end_time"])["result"] == "success"
    wait_until(
        lambda: states() == ["Cancelled", "Cancelled", "Scheduled"],
        timeout_s=90,
        description="it has a run of its first time again",
    )
    assert stage.airing("streamer1", class_id)["state"] == "ready"


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


def test_a_change_by_hand_that_cannot_be_made_now_fails(teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tries it again, as a message of the inbox is: a run that is *Completed* would be taken for done."""

    async def away(_host: object) -> list[str]:
        raise TryAgain("the streamers' heartbeats cannot be read: refused")

    monkeypatch.setattr(changing, "alive_streamers", away)
    hall.current.set(teacher)
    for dry_run in (False, True):
        with pytest.raises(TryAgain, match="cannot be read: refused"):
            asyncio.run(changing.change.fn(class_id="c-1", end_time=1_764_010_800.0, dry_run=dry_run))
