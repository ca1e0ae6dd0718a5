"""One process at a time is killed, while classes wait for an answer: how long it is until each has its own."""

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from redis.exceptions import RedisError

from tests.faults.day import Rendition
from tests.faults.play import Play
from tests.faults.world import HOSTS, PLAYOUTS
from tests.stage import wait_until

VICTIMS = (*HOSTS, *PLAYOUTS, "redis", "prefect")
CLASSES = 6
RECOVERY_S = 60.0
"""After any single kill every class is answered within so long."""

END_S = 300.0
WELL_S = 300.0
RESTART_S = 1.0
"""A supervisor starts what has died after so long."""


@dataclass(frozen=True)
class Recovery:
    """After the kill of *who* the last class was answered after *seconds*; None where one never was."""

    who: str
    seconds: float | None

    def complaint(self) -> str | None:
        """What is wrong with it, in words."""
        if self.seconds is None:
            return f"{self.who} was killed, and a class was not answered within {END_S:g} s"
        return f"{self.who} was killed, recovered after {self.seconds:.0f} s" if self.seconds > RECOVERY_S else None


def kill_each(play: Play, victims: Sequence[str]) -> list[Recovery]:
    """Kill each of *victims* once, and wait until everybody is well again before the next."""
    return [_kill(play, who, play.day.records + turn) for turn, who in enumerate(victims)]


def _kill(play: Play, who: str, record: int) -> Recovery:
    world, chance = play.world, random.Random(f"{who} {play.day.seed}")

    def well() -> bool:
        world.tend()
        return world.all_well()

    wait_until(well, timeout_s=WELL_S, description="everybody is well")
    world.record(record)
    world.transcodes([Rendition(record, "720P", "made", 0.3, None, None, {}, kept=True)])
    booked = [_book(play, record, number) for number in range(CLASSES)]
    time.sleep(chance.uniform(0.0, 1.0))
    world.kill(who, RESTART_S)
    killed_at = time.monotonic()

    def answered() -> bool:
        world.tend()
        try:
            return set(booked) <= play.sight.answers().keys()
        except (RedisError, OSError):
            return False

    try:
        wait_until(answered, timeout_s=END_S, pause_s=0.1, description="all are answered")
    except AssertionError:
        return Recovery(who, None)
    return Recovery(who, time.monotonic() - killed_at)


def _book(play: Play, record: int, number: int) -> str:
    """On the stream, before the kill: each second one must be transcoded first."""
    stage = play.world.stage
    resolution = "720P" if number % 2 else None
    booking = stage.booking(play.world.record_id(record), resolution, starts_in_s=100_000)
    stage.town.redis.xadd(stage.channels["order"], {"body": json.dumps(booking)})
    return str(booking["class_id"])
