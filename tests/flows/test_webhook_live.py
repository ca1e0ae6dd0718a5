"""Whatever the webhook's receiver does, each message arrives there in the order of its class; Redis hears first."""

import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.hook import SECRET, receiving
from tests.stage import Gate, Stage, Town, staged, wait_until
from town.ports import HOST

pytestmark = [pytest.mark.live, pytest.mark.timeout(2400)]

CHANNELS = ("order_result", "change_result", "cancel_result", "class_event")


@dataclass
class Hooked:
    """Living hosts, the receiver of their webhook, and the way to it."""

    stage: Stage
    receiver: Any
    way: Gate
    record: int
    booked: list[str] = field(default_factory=list)

    def life(self) -> str:
        """A class that is booked, changed, and cancelled; Redis hears all of it."""
        stage = self.stage
        booking = stage.booking(self.record, starts_in_s=3600)
        class_id = stage.book_on_stream(booking)
        self.booked.append(class_id)
        stage.answer(class_id)
        stage.publish("change", {"cmd": "change", "class_id": class_id, "end_time": booking["end_time"] + 60})
        stage.cancel_on_stream(class_id)
        wait_until(
            lambda: any(one["class_id"] == class_id for one in stage.stream(stage.channels["cancel_result"])),
            description=f"the cancel of {class_id} is answered",
        )
        return class_id

    def is_posted(self) -> bool:
        """Whether all that was sent on Redis is taken by the receiver."""
        return not self.stage.rows("teacher", "select id from outbox_list where sent_at is null or webhook = 'due'")

    def wrong(self) -> Iterator[str]:
        """What the receiver has not, or otherwise, or in another order than it was committed."""
        sent = [one for name in CHANNELS for one in self.stage.stream(self.stage.channels[name])]
        taken: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
        for id_, message in self.receiver.taken:
            if taken[message["class_id"]].setdefault(int(id_.removeprefix("msg_")), message) != message:
                yield f"{id_} came twice, with another content: {message}"
        for class_id in self.booked:
            its = taken[class_id]
            if list(its) != sorted(its):
                yield f"{class_id}: posted in the order {list(its)}"
            mine = sorted(json.dumps(one, sort_keys=True) for one in sent if one["class_id"] == class_id)
            if (posted := sorted(json.dumps(one, sort_keys=True) for one in its.values())) != mine:
                yield f"{class_id}: Redis heard {mine}, the receiver {posted}"


@pytest.fixture(scope="module")
def hooked(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hooked]:
    with receiving() as receiver:
        way = Gate(receiver.server_port)
        own = {"EVENT_WEBHOOK_URL": f"http://{HOST}:{way.port}/hook", "EVENT_WEBHOOK_SECRET": SECRET}
        with staged(town, tmp_path_factory.mktemp("hooked"), **own) as stage:
            stage.up("teacher", "streamer1")
            record = town.record()
            stage.answer(stage.book(stage.booking(record, starts_in_s=7200)))
            yield Hooked(stage, receiver, way, record)
        town.background.run(way.stop())


@pytest.mark.parametrize("down_s", [4, pytest.param(600, marks=pytest.mark.night)])
def test_a_receiver_that_is_down_hangs_or_fails_gets_all_in_its_order(hooked: Hooked, down_s: float) -> None:
    run, chance, hung = hooked.stage.town.background.run, random.Random(7), threading.Event()
    run(hooked.way.stop())
    began = time.monotonic()
    down = [hooked.life() for _ in range(6)]
    wait_until(
        lambda: time.monotonic() > began + down_s, timeout_s=down_s + 30, description="the receiver was away so long"
    )
    assert not {message["class_id"] for _, message in hooked.receiver.taken}.intersection(down)

    def fails(message: Any) -> int:
        if not hung.is_set():
            hung.wait(30)
        # A message that was not taken for minutes is posted again after minutes.
        return 500 if message["class_id"] not in down and chance.random() < 0.3 else 200

    hooked.receiver.refuses = fails
    run(hooked.way.start())
    for _ in range(4):
        hooked.life()  # is answered on Redis while the receiver hangs
    hung.set()
    for _ in range(4):
        hooked.life()
    wait_until(hooked.is_posted, timeout_s=180 + down_s, pause_s=0.5, description="all is posted")
    assert list(hooked.wrong()) == []
    assert hooked.receiver.refused
