"""A booked class is changed, also while it is on air; typed by hand, it is the same."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from flows import host as hall
from flows.teacher import bookings as changing
from lectern import rendition_ids
from lectern.db.engine import open_database
from lectern.errors import TryAgain
from lectern.playout import flv
from lectern.storage import cache_dir
from tests.faults import hosts
from tests.stage import Stage, Town, staged, wait_until
from tests.stage.ear import Fields
from town import recordings
from town.platform import seconds
from town.ports import HOST, free_port

pytestmark = pytest.mark.live
SOON_S, VIDEO = 30.0, 9
"""Seconds that a busy machine may take, far more than the two that are promised; and the kind of an FLV tag."""


def asked(stage: Stage, class_id: str, **fields: object) -> dict[str, Any]:
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
    assert asked(stage, class_id, end_time=time.time() + 10)["result"] == "success"
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


def test_a_change_by_hand_that_cannot_be_made_now_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tries it again, as a message of the inbox is: a run that is *Completed* would be taken for done."""

    async def away(_host: object) -> list[str]:
        raise TryAgain("the streamers' heartbeats cannot be read: refused")

    monkeypatch.setattr(changing, "alive_streamers", away)
    engine = open_database(f"sqlite:///{hosts.database('teacher', tmp_path / 'teacher.db')}")
    hall.current.set(hosts.teacher(engine))
    for dry_run in (False, True):
        with pytest.raises(TryAgain, match="cannot be read: refused"):
            asyncio.run(changing.change.fn(class_id="c-1", end_time=1_764_010_800.0, dry_run=dry_run))
    engine.dispose()


# The platform hears how each class goes, from a real bus: in order, without a hole, and its end once.


Said = dict[str, list[Fields]]


@pytest.fixture
def heard(stage: Stage) -> Iterator[Said]:
    """What a subscriber hears on both channels, by class, in the order in which it hears it."""
    names = [stage.channels["class_event"], stage.channels["cancel_result"]]
    found: dict[str, list[Fields]] = {}
    client = redis_py.Redis.from_url(stage.town.redis_url, decode_responses=True)
    pubsub = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    pubsub.subscribe(*names)
    over = threading.Event()

    def listen() -> None:
        while not over.is_set():
            message: Any = pubsub.get_message(timeout=0.2)
            if message is not None:
                said = json.loads(message["data"])
                found.setdefault(said["class_id"], []).append(said)

    thread = threading.Thread(target=listen)
    thread.start()
    yield found
    over.set()
    thread.join()
    client.close()


def events(heard: Said, class_id: str) -> list[str]:
    return [one["event"] for one in heard.get(class_id, []) if one["cmd"] == "class_event"]


def test_a_class_that_is_aired_and_cut_and_one_that_is_cancelled_on_air(stage: Stage, heard: Said) -> None:
    """The sums of the end are those of the receiver; a cancel is answered with what was sent until then."""
    booking = stage.booking(stage.town.record(), starts_in_s=14, length_s=22)
    cut = stage.book(booking)
    cancelled = stage.book(stage.booking(stage.town.record(), starts_in_s=14, length_s=120))
    refused = stage.book(stage.booking(stage.town.record(), starts_in_s=-100, length_s=10))
    stage.cancel("nobody-booked-this")
    stage.on_air(cut)
    stage.on_air(cancelled)
    for class_id in (cut, cancelled):
        wait_until(lambda one=class_id: "on_air" in events(heard, one), description=f"{class_id} is told as on air")
    stage.cancel(cancelled)
    wait_until(lambda: "ended" in events(heard, cancelled), description="the end of the cancelled one is told")
    stage.town.background.run(stage.town.receiver.stop())
    time.sleep(5)  # so long nothing is taken
    stage.town.background.run(stage.town.receiver.start())
    wait_until(lambda: "ended" in events(heard, cut), timeout_s=60, description="the end of the other is told")
    assert events(heard, cut) == ["accepted", "on_air", "interrupted", "resumed", "ended"]
    for class_id in (cut, cancelled, refused):
        its = [one for one in heard[class_id] if one["cmd"] == "class_event"]
        assert [one["seq"] for one in its] == list(range(1, len(its) + 1))
        assert {one["institution_id"] for one in its} == {"i-7"}
    _, on_air, interrupted, resumed, end = heard[cut]
    assert -0.1 < on_air["late_s"] < 1.5
    assert (interrupted["code"], resumed["lost_s"]) == (321, pytest.approx(resumed["at"] - interrupted["at"], abs=0.01))
    assert resumed["position_s"] == pytest.approx(resumed["at"] - booking["start_time"], abs=0.01)
    assert (end["outcome"], end["sessions"]) == ("with_gaps", 2)
    assert end["sent_s"] == pytest.approx(seconds(stage.pushes(cut)), abs=1.0)
    assert end["missing_s"] == pytest.approx(22 - end["sent_s"], abs=0.01)
    assert stage.order(cut)["state"] == "aired with gaps"
    *_, end = [one for one in heard[cancelled] if one["cmd"] == "class_event"]
    (answer,) = [one for one in heard[cancelled] if one["cmd"] == "cancel_result"]
    assert (end["outcome"], answer["result"], answer["code"]) == ("cancelled", "success", 0)
    assert answer["sent_s"] == end["sent_s"] == pytest.approx(seconds(stage.pushes(cancelled)), abs=1.0)
    assert events(heard, refused) == ["refused"]
    (unknown,) = heard["nobody-booked-this"]
    assert (unknown["cmd"], unknown["result"], unknown["code"]) == ("cancel_result", "fail", 404)


# What is wrong with a class is told while there is time.


def alarm_of(stage: Stage, class_id: str) -> str:
    found = wait_until(
        lambda: stage.alarms(324, class_id=class_id), timeout_s=120, description=f"{class_id} is called not ready"
    )
    return str(found[0]["message"])


def test_a_lost_file_and_a_push_url_where_nobody_listens_are_told_before_the_start(town: Town, tmp_path: Path) -> None:
    """One alarm a class with every reason; a class that is ready has none; the timetable shows both."""
    with staged(town, tmp_path) as stage:
        stage.up("streamer1")
        nobody = f"rtmp://{HOST}:{free_port()}/live/x"
        good = stage.booking(stage.town.record(), starts_in_s=280, length_s=60)
        bad = stage.booking(stage.town.record(), starts_in_s=280, length_s=60, push_url=nobody)
        for one in (good, bad):
            stage.tell("streamer1", {**one, "cmd": "prepare"})
        kept = {one["class_id"]: rendition_ids.of_url(one["video_url"]) for one in (good, bad)}
        wait_until(lambda: set(kept.values()) <= stage.cached("streamer1"), description="both are cached")
        cache_dir.rendition_path(stage.folder / "streamer1", kept[bad["class_id"]]).unlink()
        said = alarm_of(stage, bad["class_id"])
        assert "its file is gone" in said
        assert "its push URL cannot be reached" in said
        assert stage.alarms(324, class_id=good["class_id"]) == []

        def told() -> dict[str, str]:
            said = stage.stream(stage.settings["REPORT_STREAM"])
            return {one["class_id"]: one["event"] for one in said if one["cmd"] == "airing"}

        stated = {good["class_id"]: "ready", bad["class_id"]: "not_ready"}
        wait_until(lambda: told() == stated, description="the teacher is told, for the platform")
        key = f"timetable-{stage.name('streamer1')}"

        def shown() -> dict[str, str]:
            asked = {"artifacts": {"key": {"any_": [key]}}}
            found = town.api.post("/artifacts/latest/filter", json=asked).raise_for_status().json()
            return {line["class"]: line["ready"] for one in found for line in _lines(one["data"])}

        wait_until(
            lambda: shown() == {good["class_id"]: "●", bad["class_id"]: "✗"},
            description="the timetable shows which one is ready",
        )


def _lines(data: object) -> list[dict[str, str]]:
    return list(json.loads(data)) if isinstance(data, str) else list(data)  # type: ignore[call-overload]


def test_a_class_is_refused_at_once_if_its_recording_will_be_late(town: Town, tmp_path: Path) -> None:
    """A download of some seconds, at a low DOWNLOAD_RATE."""
    with staged(town, tmp_path, DOWNLOAD_RATE="16k") as stage:
        stage.up("streamer1")
        record = stage.town.record(seconds=30)
        takes_s = (stage.town.origin.root / str(record) / f"{record}.flv").stat().st_size / 16 / 1024
        assert takes_s > 10
        good = stage.booking(record, starts_in_s=60 + 3 * takes_s, length_s=60)
        late = stage.booking(stage.town.record(seconds=30), starts_in_s=takes_s / 3, length_s=600)
        booked_at = time.time()
        for one in (good, late):
            stage.tell("streamer1", {**one, "cmd": "prepare"})

        def prepared() -> dict[str, tuple[int, float]]:
            said = stage.stream(stage.settings["REPORT_STREAM"])
            return {one["class_id"]: (one["code"], time.time()) for one in said if one["cmd"] == "prepared"}

        refused = wait_until(lambda: prepared().get(late["class_id"]), description="the late one is refused")
        assert refused is not None
        assert refused[0] == 324
        assert refused[1] < booked_at + takes_s, "before its recording could have come"

        def forecast() -> float | None:
            body = stage.town.redis.hget(f"{stage.settings['STREAMERS_KEY']}:words", stage.name("streamer1"))
            found: dict[str, float] = json.loads(str(body or "{}")).get("ready_by", {})
            return found.get(good["class_id"])

        said_at = wait_until(forecast, description="the heartbeat says when the recording will be there")
        assert said_at is not None
        there = wait_until(lambda: prepared().get(good["class_id"]), timeout_s=120, description="it is there")
        assert there is not None
        assert there[0] == 0
        assert abs(there[1] - said_at) < 30 + 0.2 * takes_s
