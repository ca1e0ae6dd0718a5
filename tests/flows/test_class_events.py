"""The platform hears how each class goes, from a real bus: in order, without a hole, and its end once."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py

from tests.stage import PROMPT_S, Stage, wait_until
from tests.stage.ear import Fields
from town.platform import seconds

pytestmark = pytest.mark.live

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
    booking = stage.booking(stage.town.record(seconds=90), starts_in_s=14, length_s=34)
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
    assert -0.1 < on_air["late_s"] < PROMPT_S
    assert (interrupted["code"], resumed["lost_s"]) == (321, pytest.approx(resumed["at"] - interrupted["at"], abs=0.01))
    assert resumed["position_s"] == pytest.approx(resumed["at"] - booking["start_time"], abs=0.01)
    assert (end["outcome"], end["sessions"]) == ("with_gaps", 2)
    assert end["sent_s"] == pytest.approx(seconds(stage.pushes(cut)), abs=1.0)
    assert end["missing_s"] == pytest.approx(34 - end["sent_s"], abs=0.01)
    assert stage.order(cut)["state"] == "aired with gaps"
    *_, end = [one for one in heard[cancelled] if one["cmd"] == "class_event"]
    (answer,) = [one for one in heard[cancelled] if one["cmd"] == "cancel_result"]
    assert (end["outcome"], answer["result"], answer["code"]) == ("cancelled", "success", 0)
    assert answer["sent_s"] == end["sent_s"] == pytest.approx(seconds(stage.pushes(cancelled)), abs=1.0)
    assert events(heard, refused) == ["refused"]
    (unknown,) = heard["nobody-booked-this"]
    assert (unknown["cmd"], unknown["result"], unknown["code"]) == ("cancel_result", "fail", 404)
