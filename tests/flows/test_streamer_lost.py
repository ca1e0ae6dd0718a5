"""A streamer is lost: its classes are moved to another, and two streamers never push the same class."""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from flows.teacher import membership
from tests.faults.ways import Ways
from tests.stage import PROMPT_S, Stage, Town, staged, wait_until
from town.ports import HOST, free_port

pytestmark = pytest.mark.live

LOST_S = 20
LOOK_S = membership.LOOK_S + membership.SEEN_S
LEASE_S = 12
"""Long enough for a Prefect server that other tests keep busy to be asked twice."""

AWAY_S = 28
"""Longer than a lease and the longest word that somebody else can give for it."""

WHO = ("streamer1", "streamer2")
OnAir = tuple[str, str, str]


@pytest.fixture(scope="module")
def ways(town: Town) -> Iterator[Ways]:
    """The ways of all hosts to Redis and Prefect, which can be shut."""
    with Ways(town, ("teacher", *WHO)) as found:
        yield found


@pytest.fixture(scope="module")
def stage(town: Town, ways: Ways, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A teacher and two streamers, which are lost soon."""
    settings = {
        "STREAMER_LOST_AFTER_S": str(LOST_S),
        "LEASE_S": str(LEASE_S),
        "HEARTBEAT_INTERVAL_S": "1",
        "STREAMER_LOAD_SLACK": "1000",
    }
    with staged(town, tmp_path_factory.mktemp("lost"), **settings) as found:
        found.own = {who: ways.own(who) for who in ("teacher", *WHO)}
        for who in WHO:
            health = f"{HOST}:{free_port()}"
            found.own[who] |= {"HEALTH_BIND": health, "HEALTH_ADDRESS": health}
        yield found


def beat(stage: Stage, who: str) -> dict[str, Any]:
    """The last heartbeat of a streamer."""
    return dict(json.loads(stage.town.redis.hget(f"{stage.prefix}:streamers", stage.name(who)) or "{}"))


@pytest.fixture
def on_air(stage: Stage) -> OnAir:
    """A class on air: its class_id, the streamer that has it, and the other one."""
    stage.up("teacher", *WHO)

    def heard(since: dict[str, float]) -> dict[str, float]:
        """When each streamer that takes classes last spoke; those that have not spoken after *since* are left."""
        beats = {who: beat(stage, who) for who in WHO}
        lately = time.time() - LOST_S / 2
        takes = {who: one["at"] for who, one in beats.items() if not one.get("full", True) and not one.get("gone")}
        return {who: at for who, at in takes.items() if at > since.get(who, lately)}

    wait_until(lambda: len(heard({})) == 2, description="both streamers are heard of")
    # A teacher that has just asked who lives does not ask again for a second.
    known = {who: at + LOOK_S for who, at in heard({}).items()}
    wait_until(lambda: len(heard(known)) == 2, description="the teacher knows both")
    booking = stage.booking(stage.town.record(seconds=90), starts_in_s=8, length_s=85)
    class_id = stage.book_on_stream(booking)  # after a test before, the teacher may not hear its channels yet
    where = stage.answer(class_id)["streamer"].removeprefix(f"{stage.prefix}-")
    stage.on_air(class_id)
    return class_id, where, WHO[where == WHO[0]]


def taken_over(stage: Stage, class_id: str, by: str, timeout_s: float) -> None:
    """Wait until *by* pushes the class."""
    wait_until(
        lambda: stage.airing(by, class_id).get("state") == "on air" and stage.on_air(class_id, timeout_s),
        timeout_s=timeout_s,
        description=f"{by} pushes {class_id}",
    )


def test_a_class_on_air_and_one_to_come_are_taken_over_from_a_dead_streamer(
    stage: Stage, on_air: OnAir, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the clock's position, within 10 s after the streamer counts as lost; the platform hears nothing of it."""
    class_id, dead, other = on_air
    record = stage.order(class_id)["url_stem"]
    later = stage.book(stage.booking(record))
    assert stage.answer(later)["streamer"] == stage.name(dead)
    stage.residents[dead].kill()
    killed_at = time.time()
    taken_over(stage, class_id, other, LOST_S + 60)
    _, second, *_ = stage.pushes(class_id)
    assert second.first_media_at is not None
    assert not second.concurrent
    with capsys.disabled():
        took_s = second.first_media_at - killed_at - LOST_S
        sys.stdout.write(f" [taken over {took_s:.1f} s after the streamer counts as lost] ")
    assert -2.5 < stage.late_s(class_id, second) < 2 + PROMPT_S
    wait_until(lambda: stage.order(later)["streamer"] == stage.name(other), description="the later class is moved")
    wait_until(lambda: stage.order(later)["state"] == "ready", description="it is prepared anew")
    assert len(stage.ear.answers[class_id]) == len(stage.ear.answers[later]) == 1
    assert stage.alarms(322)
    stage.cancel(class_id)
    stage.cancel(later)
    stage.up(dead)
    wait_until(lambda: stage.num_cite(dead, str(record)) == 0, description="the dead one hears of it")
    assert stage.airing(dead, class_id)["state"] == "cancelled"


def test_a_drained_streamer_gives_its_classes_away_but_airs_what_began(stage: Stage, on_air: OnAir) -> None:
    """Nothing is cut, and nobody is answered twice."""
    class_id, drained, other = on_air
    later = stage.book(stage.booking(stage.order(class_id)["url_stem"]))
    assert stage.answer(later)["streamer"] == stage.name(drained)
    found = stage.lectern(drained, "drain", "--within", "40", "--json")
    told = json.loads(found.stdout)
    assert (found.returncode, told["empty"], told["on_air"]) == (1, False, [class_id]), found.stderr
    assert told["others"] == [stage.name(other)]
    assert told["waiting"] == [], "the class of later was moved"
    wait_until(lambda: stage.order(later)["state"] == "ready", description="it is prepared anew")
    assert stage.order(later)["streamer"] == stage.name(other)
    assert len(stage.pushes(class_id)) == 1, "what is on air is not touched"
    stage.cancel(class_id)
    stage.off_air(class_id)
    empty = stage.lectern(drained, "drain", "--within", "60")
    assert empty.returncode == 0, empty.stdout + empty.stderr
    assert "Nothing waits here" in empty.stdout
    assert stage.lectern(drained, "drain", "--off").returncode == 0
    wait_until(lambda: beat(stage, drained).get("full") is False, description="it gets classes again")
    assert len(stage.ear.answers[later]) == 1
    stage.cancel(later)


def test_a_streamer_that_does_not_reach_redis_hears_of_the_move_from_prefect(
    stage: Stage, ways: Ways, on_air: OnAir
) -> None:
    """Until then it goes on, longer than its lease; it stops before the other begins."""
    class_id, cut, other = on_air
    with ways.away((cut, "redis")):
        taken_over(stage, class_id, other, LOST_S + 60)
        first, second, *_ = stage.pushes(class_id)
        assert first.last_media_at is not None
        assert second.first_media_at is not None
        assert first.last_media_at - first.started_at > LEASE_S + 2
        assert not second.concurrent
    wait_until(lambda: stage.airing(cut, class_id)["state"] == "cancelled", description="it hears of it")
    assert not any(one.concurrent for one in stage.pushes(class_id))
    stage.cancel(class_id)
    stage.off_air(class_id)


def test_a_class_goes_on_while_nobody_reaches_the_control_host(stage: Stage, ways: Ways, on_air: OnAir) -> None:
    """Its Redis has forgotten all when it is back: the other streamer says that it hears nobody either."""
    class_id, where, _ = on_air
    wait_until(lambda: all(beat(stage, who).get("peers") for who in WHO), description="the streamers know each other")
    before = len(stage.residents[where].said())

    def said() -> str:
        return stage.residents[where].said()[before:]

    with ways.away(*ways.gates):
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > AWAY_S, description="it is away for long")
        (push,) = stage.pushes(class_id)
        assert push.ended_at is None, said()
        assert "every other streamer answers and hears no control host either; the classes go on" in said()
        for key in stage.town.redis.scan_iter(f"{stage.prefix}:*"):
            stage.town.redis.delete(key)
    wait_until(lambda: "the control host is heard again" in said(), description="it is heard again")
    (push,) = stage.pushes(class_id)
    assert push.ended_at is None
