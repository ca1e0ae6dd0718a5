"""A booking, from the platform's message to its answer."""

import json

import pytest

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
    wait_until(lambda: stage.town.redis.xpending(stream, "lectern")["pending"] == 0, description="it is acknowledged")
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


def _silent(record_id: int) -> Rule:
    return Rule(Behaviour.SILENT, record_id=record_id)
