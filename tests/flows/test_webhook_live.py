"""Whatever the webhook's receiver does, each message arrives there in the order of its class; Redis hears first."""

import json
import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.hook import SECRET, receiving
from tests.stage import Gate, Stage, Town, staged, wait_until
from town.ports import HOST

pytestmark = [pytest.mark.live, pytest.mark.timeout(2400)]

CHANNELS = ("order_result", "change_result", "cancel_result", "class_event")


def life(stage: Stage, record: int) -> str:
    """A class that is booked, changed, and cancelled; Redis hears all of it."""
    booking = stage.booking(record, starts_in_s=3600)
    class_id = stage.book_on_stream(booking)
    stage.answer(class_id)
    stage.publish("change", {"cmd": "change", "class_id": class_id, "end_time": booking["end_time"] + 60})
    stage.cancel_on_stream(class_id)
    wait_until(
        lambda: any(one["class_id"] == class_id for one in stage.stream(stage.channels["cancel_result"])),
        description=f"the cancel of {class_id} is answered",
    )
    return class_id


def ordered(messages: Iterable[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(one, sort_keys=True) for one in messages)


def test_a_receiver_that_is_down_and_then_fails_gets_all_in_its_order(town: Town, tmp_path: Path) -> None:
    down, chance = list[str](), random.Random(7)

    def fails(message: Any) -> int:
        # A message that was not taken for a while is posted again only after a while.
        return 500 if message["class_id"] not in down and chance.random() < 0.3 else 200

    with receiving() as receiver:
        receiver.refuses, way = fails, Gate(receiver.server_port)
        own = {"EVENT_WEBHOOK_URL": f"http://{HOST}:{way.port}/hook", "EVENT_WEBHOOK_SECRET": SECRET}
        with staged(town, tmp_path, **own) as stage:
            stage.up("teacher", "streamer1")
            record, untold = town.record(), "select id from outbox_list where sent_at is null or webhook = 'due'"
            down += [life(stage, record) for _ in range(4)]
            town.background.run(way.start())
            booked = [*down, *(life(stage, record) for _ in range(6))]
            wait_until(
                lambda: not stage.rows("teacher", untold), timeout_s=180, pause_s=0.5, description="all is posted"
            )
            town.background.run(way.stop())
            sent = [one for name in CHANNELS for one in stage.stream(stage.channels[name])]
        taken: dict[str, dict[int, Any]] = defaultdict(dict)
        for id_, message in receiver.taken:
            assert taken[message["class_id"]].setdefault(int(id_.split("_")[1]), message) == message
        for class_id in booked:
            its = taken[class_id]
            assert list(its) == sorted(its)
            assert ordered(its.values()) == ordered(one for one in sent if one["class_id"] == class_id)
        assert receiver.refused
