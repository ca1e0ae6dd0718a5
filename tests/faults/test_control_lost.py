"""Classes go on where the control host is away."""

import time

import pytest

from tests.faults.ways import Ways
from tests.stage import Town, staged, wait_until
from town.ports import HOST, free_port

pytestmark = pytest.mark.live


LEASE_S, LOST_S = 12.0, 20.0
LONG_S = 28.0
"""Longer than a lease and the longest word that somebody else can give for it."""
WHO = ("streamer1", "streamer2")


def test_classes_go_on_while_the_control_host_is_away(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Redis is stopped for real, Prefect is out of reach: the other streamer says that it hears nobody either."""
    settings = {
        "STREAMER_LOST_AFTER_S": str(LOST_S),
        "LEASE_S": str(LEASE_S),
        "HEARTBEAT_INTERVAL_S": "1",
        "STREAMER_LOAD_SLACK": "1000",
    }
    with (
        Town(tmp_path_factory.mktemp("town")) as town,
        Ways(town, WHO) as ways,
        staged(town, tmp_path_factory.mktemp("stage"), **settings) as stage,
    ):
        for who in WHO:
            health = f"{HOST}:{free_port()}"
            stage.own[who] = {**ways.own(who), "HEALTH_BIND": health, "HEALTH_ADDRESS": health}
        stage.up("teacher", *WHO)

        def know_each_other() -> bool:
            beats = town.redis.hgetall(f"{stage.prefix}:streamers")
            return len(beats) == 2 and all(f'"peers": ["{stage.prefix}-' in one for one in beats.values())

        wait_until(know_each_other, description="the streamers know each other")
        booking = stage.booking(town.record(seconds=170), starts_in_s=8, length_s=160)
        class_id = stage.book_on_stream(booking)
        where = stage.answer(class_id, timeout_s=60)["streamer"].removeprefix(f"{stage.prefix}-")
        stage.on_air(class_id, timeout_s=60)
        with ways.away(*((who, "prefect") for who in WHO)):
            town.servers["redis"].kill()
            began = time.monotonic()
            wait_until(lambda: time.monotonic() - began > LONG_S, description="it is away for long")
            said = stage.residents[where].said()
            (push,) = stage.pushes(class_id)
            assert push.ended_at is None, said[-3000:]
            assert "every other streamer answers and hears no control host either; the classes go on" in said
            town.begin("redis")  # it has forgotten all
        stage.residents[where].wait_for("the control host is heard again")
        (push,) = stage.pushes(class_id)
        assert push.ended_at is None
