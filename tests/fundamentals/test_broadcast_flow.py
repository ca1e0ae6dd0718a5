"""A class on air: at its second, to its end, at the clock's position, released once."""

import os
import signal

import pytest

from lectern.effects.files import store
from tests.stage import PROMPT_S, Stage, ffmpegs_of, wait_until

pytestmark = pytest.mark.timeout(300)  # the first test of a session starts the servers


def test_a_class_is_on_air_from_its_second_to_its_end(stage: Stage) -> None:
    """Then its citation is taken back, and the teacher knows that it was aired; the file stays."""
    booking = stage.booking(record := stage.town.record(), starts_in_s=9, length_s=5)
    class_id = stage.book(booking)
    (push,) = stage.off_air(class_id)
    assert push.first_media_at is not None
    assert push.last_timestamp_ms is not None
    assert 0 <= push.first_media_at - booking["start_time"] < PROMPT_S
    assert push.first_timestamp_ms is not None
    assert 4.0 <= (push.last_timestamp_ms - push.first_timestamp_ms) / 1000 <= 5.2
    assert stage.position_s(record, push) < 0.1
    wait_until(lambda: stage.order(class_id)["state"] == "aired", description="the teacher knows that it was aired")
    assert stage.num_cite("streamer1", str(record)) == 0
    assert str(record) in stage.cached("streamer1")


def test_its_ffmpeg_is_there_before_its_second_and_speaks_to_nobody(stage: Stage) -> None:
    """It waits; one that was killed while it waited makes no class late, and a class that is cancelled has none."""
    classes = [stage.book(stage.booking(stage.town.record(), starts_in_s=45, length_s=3)) for _ in range(3)]
    killed, cancelled, _ = classes
    wait_until(lambda: all(ffmpegs_of(one) for one in classes), description="an ffmpeg waits for each", timeout_s=60)
    assert all(stage.pushes(one) == [] for one in classes)
    os.kill(ffmpegs_of(killed)[0], signal.SIGKILL)
    stage.cancel(cancelled)
    wait_until(lambda: ffmpegs_of(cancelled) == [], description="its ffmpeg is gone")
    for one in (killed, classes[2]):
        (push,) = stage.off_air(one)
        assert push.first_timestamp_ms is not None
    assert stage.pushes(cancelled) == []


def test_the_timetable_is_in_the_ui(stage: Stage) -> None:
    """A run a class, scheduled for a moment before its start, with tags to search for."""
    booking = stage.booking(record := stage.town.record(), starts_in_s=900)
    class_id = stage.book(booking)
    stage.answer(class_id)
    (run,) = wait_until(lambda: stage.runs("streamer1", f"broadcast {class_id}"), description="its run is there")
    assert run["state_name"] == "Scheduled"
    assert {f"class:{class_id}", f"record:{record}"} <= set(run["tags"])


def test_a_late_booking_is_aired_from_the_clocks_position(stage: Stage) -> None:
    """Whoever joins late misses what was said before, as in any class."""
    booking = stage.booking(record := stage.town.record(seconds=90), starts_in_s=-10, length_s=85)
    class_id = stage.book(booking)
    push = stage.on_air(class_id)
    assert push.first_media_at is not None
    clock_s = push.first_media_at - booking["start_time"]
    stage.cancel(class_id)
    (push,) = stage.off_air(class_id)
    assert abs(stage.position_s(record, push) - clock_s) < 2.5  # a key picture every 2 s


def test_a_push_that_breaks_off_is_taken_up_at_the_clocks_position(stage: Stage) -> None:
    """At most 3 s later."""
    booking = stage.booking(record := stage.town.record(), starts_in_s=6, length_s=10)
    class_id = stage.book(booking)
    stage.on_air(class_id)
    stage.town.background.run(stage.town.receiver.stop())
    stage.town.background.run(stage.town.receiver.start())
    wait_until(lambda: len(stage.pushes(class_id)) == 2, description="it is pushed again")
    first, second = stage.off_air(class_id)
    assert second.first_media_at is not None
    assert first.last_media_at is not None
    assert second.first_media_at - first.last_media_at < 3 + PROMPT_S
    assert abs(stage.position_s(record, second) - (second.first_media_at - booking["start_time"])) < 2.5
    assert not second.concurrent


def test_a_class_whose_file_is_cut_short_is_not_aired_whole(stage: Stage) -> None:
    """Its recording ends on air: a person hears of it at once, and nobody is told that it was aired."""
    class_id = stage.book(stage.booking(record := stage.town.record(), starts_in_s=12, length_s=20))
    stage.answer(class_id)
    stage.on_air(class_id)
    wait_until(lambda: stage.airing("streamer1", class_id)["state"] == "on air", description="it is on air")
    file = store.rendition_path(stage.folder / "streamer1", str(record))
    with file.open("r+b") as sink:
        sink.truncate(file.stat().st_size // 3)
    wait_until(lambda: stage.order(class_id)["state"] == "broken", timeout_s=60, description="the teacher knows")
    assert "it ends after" in stage.order(class_id)["message"]
    assert stage.alarms(321, class_id=class_id)
