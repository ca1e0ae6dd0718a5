"""The control host is away: classes go on if nobody else could air them, and end if another might."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.stage import Gate, Stage, Town, staged, wait_until
from town.ports import HOST, free_port

pytestmark = pytest.mark.live

LEASE_S, LOST_S = 12.0, 20.0
OVER_S = LEASE_S + 4.0
"""Seconds after which a class has ended that ends with its lease, on a machine that is busy."""

LONG_S = 28.0
"""Longer than a lease and the longest word that somebody else can give for it."""

WHO = ("streamer1", "streamer2")


class Ways:
    """The ways of each streamer to Redis and Prefect, and to its health for the other one."""

    def __init__(self, town: Town) -> None:
        self._town = town
        self.health = {who: free_port() for who in WHO}
        ports = {"redis": town.redis_port, "prefect": town.prefect_port}
        self.gates = {(who, what): Gate(port) for who in WHO for what, port in ports.items()}
        self.gates |= {(who, "health"): Gate(port) for who, port in self.health.items()}

    def open(self, *which: tuple[str, str]) -> None:
        """Open these ways, or all."""
        for one in which or self.gates:
            self._town.background.run(self.gates[one].start())

    def shut(self, *which: tuple[str, str]) -> None:
        """Shut these ways, or all."""
        for one in which or self.gates:
            self._town.background.run(self.gates[one].stop())

    @contextmanager
    def away(self, *which: tuple[str, str]) -> Iterator[None]:
        """Shut these ways meanwhile."""
        self.shut(*which)
        try:
            yield
        finally:
            self.open()

    def own(self, who: str) -> dict[str, str]:
        """The settings of one streamer."""
        return {
            "REDIS_URL": f"redis://{HOST}:{self.gates[who, 'redis'].port}/0",
            "PREFECT_API_URL": f"http://{HOST}:{self.gates[who, 'prefect'].port}/api",
            "HEALTH_BIND": f"{HOST}:{self.health[who]}",
            "HEALTH_ADDRESS": f"{HOST}:{self.gates[who, 'health'].port}",
        }


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Servers that nobody else uses: Redis is stopped."""
    own = Town(tmp_path_factory.mktemp("own"))
    try:
        own.start()
        yield own
    finally:
        own.stop()


@pytest.fixture(scope="module")
def ways(town: Town) -> Iterator[Ways]:
    found = Ways(town)
    found.open()
    yield found
    found.shut()


@pytest.fixture(scope="module")
def stage(town: Town, ways: Ways, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    settings = {
        "STREAMER_LOST_AFTER_S": str(LOST_S),
        "LEASE_S": str(LEASE_S),
        "HEARTBEAT_INTERVAL_S": "1",
        "STREAMER_LOAD_SLACK": "1000",
    }
    with staged(town, tmp_path_factory.mktemp("control"), **settings) as found:
        found.own = {who: ways.own(who) for who in WHO}
        found.up("teacher", *WHO)
        yield found


@pytest.fixture
def on_air(stage: Stage) -> Iterator[tuple[str, str, str]]:
    """A class on air: its class_id, the streamer that has it, the other one; both know each other."""

    def know_each_other() -> bool:
        beats = stage.town.redis.hgetall(f"{stage.prefix}:streamers")
        return len(beats) == 2 and all(f'"peers": ["{stage.prefix}-' in one for one in beats.values())

    wait_until(know_each_other, description="the streamers know each other")
    booking = stage.booking(stage.town.record(seconds=170), starts_in_s=8, length_s=160)
    class_id = stage.book_on_stream(booking)
    where = stage.answer(class_id, timeout_s=60)["streamer"].removeprefix(f"{stage.prefix}-")
    stage.on_air(class_id, timeout_s=60)
    yield class_id, where, "streamer2" if where == "streamer1" else "streamer1"
    stage.cancel_on_stream(class_id)
    stage.off_air(class_id, timeout_s=60)


def is_pushed(stage: Stage, class_id: str) -> bool:
    """Whether a push of the class is under way."""
    return any(one.ended_at is None for one in stage.pushes(class_id))


def test_classes_go_on_while_the_control_host_is_away_for_all(
    stage: Stage, ways: Ways, on_air: tuple[str, str, str]
) -> None:
    """Redis is stopped for real, Prefect is out of reach: the other streamer says that it hears nobody either."""
    class_id, where, _ = on_air
    with ways.away(*((who, "prefect") for who in WHO)):
        stage.town.servers["redis"].kill()
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > LONG_S, description="it is away for long")
        said = stage.residents[where].said()
        (push,) = stage.pushes(class_id)
        assert push.ended_at is None, said[-3000:]
        assert "every other streamer answers and hears no control host either; the classes go on" in said
        stage.town.begin("redis")  # it has forgotten all
    wait_until(
        lambda: stage.residents[where].said().count("the control host is heard again") > 0,
        description="its lease is confirmed again",
    )
    (push,) = stage.pushes(class_id)
    assert push.ended_at is None


def test_a_streamer_that_is_cut_off_alone_stops_before_another_takes_over(
    stage: Stage, ways: Ways, on_air: tuple[str, str, str]
) -> None:
    """The other one says that it hears the control host."""
    class_id, where, other = on_air
    with ways.away((where, "redis"), (where, "prefect")):
        wait_until(lambda: not is_pushed(stage, class_id), timeout_s=OVER_S, description="it stops at its lease's end")
        assert "another streamer hears the control host; they end in" in stage.residents[where].said()
        wait_until(
            lambda: stage.airing(other, class_id).get("state") == "on air" and is_pushed(stage, class_id),
            timeout_s=LOST_S + 60,
            description="the other one takes over",
        )
    wait_until(lambda: stage.airing(where, class_id)["state"] == "cancelled", description="it hears of the move")
    assert not any(one.concurrent for one in stage.pushes(class_id))


def test_a_streamer_that_reaches_nobody_at_all_stops(stage: Stage, ways: Ways, on_air: tuple[str, str, str]) -> None:
    """Although the control host is away for the other one, too: it cannot know that."""
    class_id, where, other = on_air
    blind = [(who, what) for who in WHO for what in ("redis", "prefect")]
    with ways.away(*blind, (other, "health")):
        wait_until(lambda: not is_pushed(stage, class_id), timeout_s=OVER_S, description="it stops at its lease's end")
        assert "another streamer does not answer" in stage.residents[where].said()
    wait_until(lambda: is_pushed(stage, class_id), description="it goes on when it is heard again")
    assert not any(one.concurrent for one in stage.pushes(class_id))
