"""A booking, from the platform's message to its answer."""

import json

import pytest

from lectern import stems
from tests.stage import PROMPT_S, Stage, wait_until
from town.oss_transcoder import Behaviour, Rule

pytestmark = pytest.mark.live


def test_a_booking_of_the_old_kind_is_answered_and_aired(stage: Stage) -> None:
    """It names no record and no resolution: its recording is ``6666.flv``, as ever."""
    stage.town.record(record_id=6666)
    booking = stage.booking(6666, starts_in_s=10, length_s=4)
    assert not {"record_id", "video_resolution", "video_url_list"} & booking.keys()
    answer = stage.answer(stage.book(booking))
    assert (answer["cmd"], answer["result"], answer["code"]) == ("order_result", "success", 0)
    assert answer["streamer"] == stage.name("streamer1")
    assert (stage.folder / "streamer1" / "6666" / "6666.flv").exists()
    (push,) = stage.off_air(booking["class_id"])
    assert push.first_media_at is not None
    assert 0 <= push.first_media_at - booking["start_time"] < PROMPT_S


def test_of_two_classes_on_one_push_url_at_the_same_time_the_second_is_refused(stage: Stage) -> None:
    """The first is not touched; once it is cancelled, its place is free."""
    record = stage.town.record()
    first = stage.booking(record, length_s=3_600)
    stage.answer(stage.book(first))
    second, third = (stage.booking(record, length_s=60, push_url=first["push_url"]) for _ in range(2))
    refused = stage.answer(stage.book(second), timeout_s=10)
    assert (refused["code"], first["class_id"] in refused["message"]) == (409, True)
    assert stage.order(first["class_id"])["state"] == "ready"
    stage.cancel(first["class_id"])
    wait_until(lambda: stage.order(first["class_id"])["state"] == "cancelled", description="the first is cancelled")
    assert stage.answer(stage.book(third))["result"] == "success"


def test_two_recordings_of_one_file_name_are_two_files(stage: Stage) -> None:
    """Each class has its own; a third, whose URL is signed anew, has that of its recording."""
    one, other = stage.town.record(), stage.town.record(seconds=12)
    urls = [stage.town.origin.url_for(f"{folder}/lesson.flv") for folder in (one, other)]
    for folder in (one, other):
        whole = stage.town.origin.root / str(folder) / f"{folder}.flv"
        whole.with_name("lesson.flv").write_bytes(whole.read_bytes())
    signed = f"{urls[1]}?Expires=1&Signature=x"
    booked = [stage.book(stage.booking(one, video_url=url)) for url in (*urls, signed)]
    assert [stage.answer(class_id)["result"] for class_id in booked] == ["success"] * 3
    first, second, third = (stage.airing("streamer1", class_id)["video_id"] for class_id in booked)
    assert first == "lesson"
    assert second == third == stems.hashed(urls[1])
    kept = [stage.folder / "streamer1" / stem / f"{stem}.flv" for stem in (first, second)]
    sources = [stage.town.origin.root / str(folder) / "lesson.flv" for folder in (one, other)]
    assert [path.read_bytes() for path in kept] == [path.read_bytes() for path in sources]


def test_a_booking_that_names_its_record_and_no_resolution_is_kept_by_its_record(stage: Stage) -> None:
    """Whatever its recording is called."""
    record = stage.town.record()
    whole = stage.town.origin.root / str(record) / f"{record}.flv"
    whole.with_name("take-2.flv").write_bytes(whole.read_bytes())
    url = stage.town.origin.url_for(f"{record}/take-2.flv")
    class_id = stage.book({**stage.booking(record, video_url=url), "record_id": record})
    assert stage.answer(class_id)["result"] == "success"
    assert (stage.folder / "streamer1" / str(record) / f"{record}.flv").exists()


def test_a_resolution_that_is_in_the_list_needs_no_transcoding(stage: Stage) -> None:
    """Its URL is in the booking."""
    record = stage.town.record("480P")
    class_id = stage.book(stage.booking(record, "480P", listed=("480P",)))
    assert stage.answer(class_id)["result"] == "success"
    assert (stage.folder / "streamer1" / str(record) / f"{record}_480P.flv").exists()
    assert stage.posts(record) == 0


def test_the_same_booking_twice_gets_the_same_answer_twice(stage: Stage) -> None:
    """And changes nothing: one row, one citation, one airing."""
    booking = stage.booking(stage.town.record())
    class_id = stage.book(booking)
    first = stage.answer(class_id)
    stage.book(booking)
    second = stage.answer(class_id, count=2)
    told = ("class_id", "result", "code", "streamer")
    assert [first[name] for name in told] == [second[name] for name in told]
    assert stage.num_cite("streamer1", stage.order(class_id)["url_stem"]) == 1
    wait_until(lambda: stage.airing("streamer1", class_id)["run_id"], description="its run is on the timetable")
    assert len(stage.runs("streamer1", f"broadcast {class_id}")) == 1


def test_a_malformed_booking_is_answered_with_400(stage: Stage) -> None:
    """Where its class can be read."""
    booking = {**stage.booking(stage.town.record()), "record_id": "six"}
    answer = stage.answer(stage.book(booking))
    assert (answer["result"], answer["code"]) == ("fail", 400)
    assert "record_id" in answer["message"]
    alarm, *_ = wait_until(lambda: stage.alarms(400, class_id=booking["class_id"]), description="the alarm comes")
    assert alarm["message"].startswith(f"{booking['class_id']}: record_id: ")
    assert stage.order(booking["class_id"]) == {}


def test_what_can_not_be_read_is_a_dead_letter(stage: Stage) -> None:
    """With the reason, and an alarm; the ones behind it are unharmed."""
    nonsense = f'order "{stage.prefix}", please'
    stage.publish("order", nonsense)
    stage.publish("order", "[1, 2, 3]")
    behind = stage.book(stage.booking(stage.town.record()))
    assert stage.answer(behind)["result"] == "success"
    (letter,) = [one for one in stage.stream(f"{stage.prefix}:dead_letter") if one["body"] == nonsense]
    assert "not JSON" in letter["error"]
    assert any("not JSON" in one["message"] for one in stage.alarms(504))


def test_a_message_of_a_stream_is_as_good_as_one_of_a_channel(stage: Stage) -> None:
    """It is acknowledged when it is a row of the inbox, not before."""
    booking = stage.booking(stage.town.record())
    stream = stage.channels["order"]
    stage.town.redis.xadd(stream, {"body": json.dumps(booking)})
    assert stage.answer(booking["class_id"])["result"] == "success"
    assert stage.town.redis.xpending(stream, "lectern")["pending"] == 0
    kept = stage.rows("teacher", "select source from inbox_list where body = ?", json.dumps(booking))
    assert [row["source"] for row in kept] == [f"stream:{stream}"]


def test_a_waiting_class_can_be_cancelled(stage: Stage) -> None:
    """It leaves the waiting list, and is answered: it will not be aired."""
    stage.oss.behave(_silent(record := stage.town.record()))
    class_id = stage.book(stage.booking(record, "240P"))
    wait_until(lambda: stage.waiting_list(record, "240P") == [class_id], description="the class waits")
    stage.cancel(class_id)
    assert stage.answer(class_id)["code"] == 411
    wait_until(lambda: stage.waiting_list(record, "240P") == [], description="it left the list")
    assert stage.order(class_id)["state"] == "cancelled"


def test_a_ready_class_can_be_cancelled(stage: Stage) -> None:
    """Its citation is taken back, its broadcast taken off the timetable."""
    class_id = stage.book(stage.booking(record := stage.town.record()))
    stage.answer(class_id)
    assert stage.num_cite("streamer1", str(record)) == 1
    wait_until(lambda: stage.airing("streamer1", class_id)["run_id"], description="the broadcast is on the timetable")
    stage.cancel(class_id)
    wait_until(lambda: stage.num_cite("streamer1", str(record)) == 0, description="the citation is taken back")
    run = wait_until(
        lambda: [one for one in stage.runs("streamer1", class_id) if one["state_type"] == "CANCELLED"],
        description="the broadcast is off the timetable",
    )
    assert len(run) == 1
    assert len(stage.ear.answers[class_id]) == 1


def test_a_class_on_air_can_be_cancelled(stage: Stage) -> None:
    """Its push ends, its citation is taken back."""
    booking = stage.booking(record := stage.town.record(seconds=90), starts_in_s=4, length_s=85)
    class_id = stage.book(booking)
    stage.on_air(class_id)
    stage.cancel(class_id)
    (push,) = stage.off_air(class_id, timeout_s=15)
    assert push.ended_at is not None
    assert push.ended_at < booking["end_time"] - 5
    wait_until(lambda: stage.num_cite("streamer1", str(record)) == 0, description="the citation is taken back")
    assert stage.airing("streamer1", class_id)["state"] == "cancelled"


def test_a_cancel_that_overtakes_its_booking_is_kept_a_moment(stage: Stage) -> None:
    """Channels keep no order among themselves."""
    booking = stage.booking(record := stage.town.record())
    stage.cancel(booking["class_id"])
    stage.book(booking)
    wait_until(lambda: stage.order(booking["class_id"]).get("state") == "cancelled", description="it is cancelled")
    wait_until(lambda: stage.num_cite("streamer1", str(record)) in (None, 0), description="nothing cites the record")


def _silent(record_id: int) -> Rule:
    return Rule(Behaviour.SILENT, record_id=record_id)
