"""A booking, from the platform's message to its answer."""

import pytest

from tests.stage import Stage, wait_until
from town.oss_transcoder import Behaviour, Rule

pytestmark = pytest.mark.live


def test_a_booking_of_the_old_kind_is_answered(stage: Stage) -> None:
    """It names no record and no resolution: its recording is ``6666.flv``, as ever."""
    stage.town.record(record_id=6666)
    booking = stage.booking(6666)
    assert not {"record_id", "video_resolution", "video_url_list"} & booking.keys()
    answer = stage.answer(stage.book(booking))
    assert (answer["cmd"], answer["result"], answer["code"]) == ("order_result", "success", 0)
    assert answer["streamer"] == stage.name("streamer1")
    assert (stage.folder / "streamer1" / "6666" / "6666.flv").exists()


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


def test_a_waiting_class_can_be_cancelled(stage: Stage) -> None:
    """It leaves the waiting list, and is answered: it will not be aired."""
    stage.oss.behave(Rule(Behaviour.SILENT, record_id=(record := stage.town.record())))
    class_id = stage.book(stage.booking(record, "240P"))
    wait_until(lambda: stage.waiting_list(record, "240P") == [class_id], description="the class waits")
    stage.cancel(class_id)
    assert stage.answer(class_id)["code"] == 411
    wait_until(lambda: stage.waiting_list(record, "240P") == [], description="it left the list")
    assert stage.order(class_id)["state"] == "cancelled"
