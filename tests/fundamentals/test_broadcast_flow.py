"""A class on air: at its second, to its end, at the clock's position, released once."""

import json

import pytest

from tests.stage import PROMPT_S, Stage, wait_until

pytestmark = pytest.mark.live


def test_a_class_is_on_air_from_its_second_to_its_end(stage: Stage) -> None:
    """Then its citation is taken back, and the teacher knows that it was aired; the file stays."""
    booking = stage.booking(record := stage.town.record(), starts_in_s=15, length_s=5)
    class_id = stage.book(booking)
    (push,) = stage.off_air(class_id)
    assert push.first_media_at is not None
    assert push.last_timestamp_ms is not None
    late_s = push.first_media_at - booking["start_time"]
    assert 0 <= late_s < PROMPT_S
    assert push.first_timestamp_ms is not None
    assert 4.0 - late_s <= (push.last_timestamp_ms - push.first_timestamp_ms) / 1000 <= 5.2
    assert stage.position_s(record, push) < 0.1 + late_s
    ends = ("aired", "aired with gaps")
    wait_until(lambda: stage.order(class_id)["state"] in ends, description="the teacher knows that it was aired")
    assert stage.order(class_id)["state"] == "aired" or late_s > 1, "what begins in time is aired whole"
    assert stage.num_cite("streamer1", str(record)) == 0
    assert str(record) in stage.cached("streamer1")


def test_a_ready_class_is_handed_over_at_once_and_a_cancelled_one_is_taken_back(stage: Stage) -> None:
    """Long before its run begins, which the UI finds by its tags: from then on the playout airs it by itself."""

    def known() -> set[str]:
        return {one["class_id"] for one in stage.playing("streamer1")["classes"]}

    class_id = stage.book(stage.booking(record := stage.town.record(), starts_in_s=900, length_s=60))
    wait_until(lambda: class_id in known(), description="the playout knows it")
    assert stage.answer(class_id)["result"] == "success"
    assert stage.airing("streamer1", class_id)["state"] == "ready", "nobody takes it yet"
    assert stage.num_cite("streamer1", str(record)) == 1
    (run,) = wait_until(lambda: stage.runs("streamer1", f"broadcast {class_id}"), description="its run is there")
    assert run["state_name"] == "Scheduled"
    assert {f"class:{class_id}", f"record:{record}"} <= set(run["tags"])
    stage.cancel(class_id)
    wait_until(lambda: class_id not in known(), description="the playout has forgotten it")
    wait_until(lambda: stage.num_cite("streamer1", str(record)) == 0, description="the citation is taken back")
    wait_until(lambda: stage.run(run["id"])["state_type"] == "CANCELLED", description="it is off the timetable")
    assert len(stage.ear.answers[class_id]) == 1


def test_a_push_that_breaks_off_is_taken_up_at_the_clocks_position(stage: Stage) -> None:
    """At once, and what happened is in the story of the class."""
    record = stage.town.record()
    later = stage.book(stage.booking(record, starts_in_s=3600))
    assert stage.answer(later)["result"] == "success"  # the recording is there, however slow the machine is
    class_id = stage.book(stage.booking(record, starts_in_s=12, length_s=20))
    stage.on_air(class_id)
    wait_until(lambda: stage.airing("streamer1", class_id)["state"] == "on air", description="it counts as on air")
    stage.town.background.run(stage.town.receiver.stop())
    stage.town.background.run(stage.town.receiver.start())
    wait_until(lambda: len(stage.pushes(class_id)) == 2, description="it is pushed again")
    _, second = stage.off_air(class_id)
    assert -2.5 < stage.late_s(class_id, second) < 6
    assert not second.concurrent
    wait_until(lambda: stage.order(class_id)["state"] == "aired", description="the teacher knows")
    assert stage.order(class_id)["message"].startswith("aired")
    assert "2 sessions" in stage.order(class_id)["message"]
    story = json.loads(stage.lectern("streamer1", "explain", class_id, "--json").stdout)["events"]
    assert {"on air", "push broke off"} <= {one["what"] for one in story}
    for host in ("streamer1", "teacher"):
        parts = stage.rows(host, "select * from as_run_list where class_id = ? order by begins", class_id)
        assert [(one["session"], one["source"]) for one in parts] == [(1, "recording"), (2, "recording")]
        assert all(one["sent_bytes"] > 10_000 for one in parts)


def test_a_class_with_a_backup_url_is_pushed_twice_and_cancelled_once(stage: Stage) -> None:
    """Here one streamer sends both; with two, each sends one. The platform hears of one class."""
    booking = stage.booking(record := stage.town.record(), starts_in_s=8, length_s=25)
    backup = f"{booking['class_id']}-b"
    booking["push_url_backup"] = booking["push_url"].replace(booking["class_id"], backup)
    class_id = stage.book(booking)
    assert stage.answer(class_id)["result"] == "success"
    wait_until(lambda: stage.num_cite("streamer1", str(record)) == 2, description="both cite the recording")
    for name in (class_id, backup):
        stage.on_air(name)
    assert f"{class_id}~backup" in stage.lectern("teacher", "explain", class_id).stdout
    stage.cancel(class_id)
    for name in (class_id, backup):
        stage.off_air(name)
    wait_until(lambda: stage.num_cite("streamer1", str(record)) == 0, description="both citations are taken back")
    assert len(stage.ear.answers[class_id]) == 1
    assert f"{class_id}~backup" not in stage.ear.answers
