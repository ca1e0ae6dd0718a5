"""A streamer is lost: its classes are moved to another, and two streamers never push the same class."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flows.teacher import membership
from lectern.cli import options
from lectern.redis import client
from tests.stage import PROMPT_S, Gate, Stage, Town, staged, wait_until

pytestmark = pytest.mark.live

LOST_S = 20
LOOK_S = membership.LOOK_S + membership.SEEN_S
LEASE_S = 12
"""Long enough for a Prefect server that other tests keep busy to be asked twice."""

Begin = Callable[..., tuple[str, str, str]]


@pytest.fixture(scope="module")
def gates(town: Town) -> Iterator[dict[str, Gate]]:
    """A way to Redis for each host, which can be shut."""
    found = {who: Gate(town.redis_port) for who in ("teacher", "streamer1", "streamer2")}
    for gate in found.values():
        town.background.run(gate.start())
    yield found
    for gate in found.values():
        town.background.run(gate.stop())


@pytest.fixture(scope="module")
def stage(town: Town, gates: dict[str, Gate], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A teacher and two streamers, which are lost soon."""
    settings = {
        "STREAMER_LOST_AFTER_S": str(LOST_S),
        "LEASE_S": str(LEASE_S),
        "HEARTBEAT_INTERVAL_S": "1",
        "STREAMER_LOAD_SLACK": "1000",
    }
    with staged(town, tmp_path_factory.mktemp("lost"), **settings) as found:
        found.own = {who: {"REDIS_URL": f"redis://127.0.0.1:{gate.port}/0"} for who, gate in gates.items()}
        found.up("teacher", "streamer1", "streamer2")
        yield found


@pytest.fixture
def on_air(stage: Stage) -> Begin:
    """Puts a class on air: its class_id, the streamer that has it, and the other one."""
    stage.up("teacher", "streamer1", "streamer2")

    def begin(length_s: float = 85) -> tuple[str, str, str]:
        def heard(since: dict[str, float]) -> dict[str, float]:
            """When each streamer that takes classes last spoke; those that have not spoken after *since* are left."""
            told: Any = stage.town.redis.hgetall(f"{stage.prefix}:streamers")
            beats = {name: json.loads(one) for name, one in told.items()}
            lately = time.time() - LOST_S / 2
            takes = {
                name: one["at"] for name, one in beats.items() if not one.get("full", True) and not one.get("gone")
            }
            return {name: at for name, at in takes.items() if at > since.get(name, lately)}

        wait_until(lambda: len(heard({})) == 2, description="both streamers are heard of")
        # A teacher that has just asked who lives does not ask again for a second.
        known = {name: at + LOOK_S for name, at in heard({}).items()}
        wait_until(lambda: len(heard(known)) == 2, description="the teacher knows both")
        booking = stage.booking(stage.town.record(seconds=90), starts_in_s=8, length_s=length_s)
        class_id = stage.book_on_stream(booking)  # after a test before, the teacher may not hear its channels yet
        where = stage.answer(class_id)["streamer"].removeprefix(f"{stage.prefix}-")
        stage.on_air(class_id)
        return class_id, where, {"streamer1": "streamer2", "streamer2": "streamer1"}[where]

    return begin


def losses(stage: Stage) -> list[object]:
    """The alarms that a streamer is lost; that an earlier loss is resolved may be said later, and is none."""
    return [alarm for alarm in stage.alarms(322) if alarm.get("stage") != "resolved"]


def taken_over(stage: Stage, class_id: str, by: str, timeout_s: float) -> None:
    """Wait until *by* pushes the class."""
    wait_until(
        lambda: stage.airing(by, class_id).get("state") == "on air" and stage.on_air(class_id, timeout_s),
        timeout_s=timeout_s,
        description=f"{by} pushes {class_id}",
    )


def test_a_class_on_air_and_one_to_come_are_taken_over_from_a_dead_streamer(
    stage: Stage, on_air: Begin, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the clock's position, within 10 s after the streamer counts as lost; the platform hears nothing of it."""
    class_id, dead, other = on_air()
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
    late_s = second.first_media_at - stage.order(class_id)["start_time"] - stage.position_s(record, second)
    assert -0.5 < late_s < 2 + PROMPT_S, "a key picture every 2 s"
    wait_until(lambda: stage.order(later)["streamer"] == stage.name(other), description="the later class is moved")
    wait_until(lambda: stage.order(later)["state"] == "ready", description="it is prepared anew")
    assert len(stage.ear.answers[class_id]) == len(stage.ear.answers[later]) == 1
    assert stage.alarms(322)
    stage.cancel(class_id)
    stage.cancel(later)
    stage.up(dead)
    wait_until(lambda: stage.num_cite(dead, str(record)) == 0, description="the dead one hears of it")
    assert stage.airing(dead, class_id)["state"] == "cancelled"


def test_a_drained_streamer_gives_its_classes_away_but_airs_what_began(stage: Stage, on_air: Begin) -> None:
    """Nothing is cut, nobody is answered twice, and no class comes to it until the drain is ended."""
    class_id, drained, other = on_air()
    later = stage.book(stage.booking(stage.order(class_id)["url_stem"]))
    assert stage.answer(later)["streamer"] == stage.name(drained)
    found = stage.lectern(drained, "drain", "--within", "40", "--json")
    told = json.loads(found.stdout)
    assert (found.returncode, told["empty"], told["on_air"]) == (1, False, [class_id]), found.stderr
    assert told["others"] == [stage.name(other)]
    assert told["waiting"] == [], "the class of later was moved"
    wait_until(lambda: stage.order(later)["state"] == "ready", description="it is prepared anew")
    assert stage.order(later)["streamer"] == stage.name(other)
    moved = f"{stage.name(drained)} is drained by {options.me()}"
    assert moved in stage.lectern("teacher", "explain", later).stdout
    new = stage.book(stage.booking(stage.order(class_id)["url_stem"]))
    assert stage.answer(new)["streamer"] == stage.name(other)
    assert len(stage.pushes(class_id)) == 1, "what is on air is not touched"
    stage.cancel(class_id)
    stage.off_air(class_id)
    empty = stage.lectern(drained, "drain", "--within", "60")
    assert empty.returncode == 0, empty.stdout + empty.stderr
    assert "Nothing waits here" in empty.stdout
    assert stage.lectern(drained, "drain", "--off").returncode == 0

    def is_open() -> bool:
        beat = json.loads(stage.town.redis.hget(f"{stage.prefix}:streamers", stage.name(drained)) or "{}")
        return beat.get("full") is False

    wait_until(is_open, description="it gets classes again")
    assert len(stage.ear.answers[later]) == 1
    for one in (later, new):
        stage.cancel(one)


def test_a_streamer_that_is_back_at_the_old_program_keeps_its_classes(stage: Stage, on_air: Begin) -> None:
    """It is not missed, for the old program airs them; leased again it goes on with them."""
    class_id, gone, _ = on_air()
    later = stage.book(stage.booking(stage.order(class_id)["url_stem"]))
    assert stage.answer(later)["streamer"] == stage.name(gone)
    known = losses(stage)
    stage.cancel(class_id)
    stage.off_air(class_id)
    stage.residents[gone].end()
    key, redis = f"{stage.prefix}:streamers", stage.town.redis
    client.say_withdrawn(redis, key, stage.name(gone))
    wait_until(lambda: client.withdrawal_is_read(redis, key, stage.name(gone)), description="the teacher has read it")
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > LOST_S + 5, timeout_s=LOST_S + 10, description="it would be missed")
    assert stage.order(later)["streamer"] == stage.name(gone)
    assert losses(stage) == known
    stage.up(gone)
    wait_until(lambda: redis.hget(f"{key}:lease", stage.name(gone)), description="it is leased again")
    assert stage.order(later)["state"] == "ready"
    stage.cancel(later)
    wait_until(lambda: stage.airing(gone, later)["state"] == "cancelled", description="it hears again")


def test_a_stopped_streamer_pushes_nothing_when_its_lease_has_run_out(stage: Stage, on_air: Begin) -> None:
    """Although it cannot do anything itself; and when it goes on, it finds that the class is another's."""
    class_id, stopped, other = on_air()
    record = stage.order(class_id)["url_stem"]
    stage.residents[stopped].pause()
    stage.off_air(class_id, timeout_s=LEASE_S + 5)
    taken_over(stage, class_id, other, LOST_S + 60)
    stage.residents[stopped].go_on()
    wait_until(lambda: stage.num_cite(stopped, str(record)) == 0, description="it hears of it")
    assert stage.airing(stopped, class_id)["state"] == "cancelled"
    assert sum(one.ended_at is None for one in stage.pushes(class_id)) == 1
    assert not any(one.concurrent for one in stage.pushes(class_id))
    assert stage.order(class_id)["streamer"] == stage.name(other)
    stage.cancel(class_id)
    stage.off_air(class_id)


def test_a_streamer_that_does_not_reach_redis_hears_of_the_move_from_prefect(
    stage: Stage, gates: dict[str, Gate], on_air: Begin
) -> None:
    """Until then it goes on, longer than its lease; it stops before the other begins."""
    class_id, cut, other = on_air()
    stage.town.background.run(gates[cut].stop())
    try:
        taken_over(stage, class_id, other, LOST_S + 60)
        first, second, *_ = stage.pushes(class_id)
        assert first.last_media_at is not None
        assert second.first_media_at is not None
        assert first.last_media_at - first.started_at > LEASE_S + 2
        assert not second.concurrent
    finally:
        stage.town.background.run(gates[cut].start())
    wait_until(lambda: stage.airing(cut, class_id)["state"] == "cancelled", description="it hears of it")
    assert not any(one.concurrent for one in stage.pushes(class_id))
    stage.cancel(class_id)
    stage.off_air(class_id)


@pytest.mark.parametrize("cut", [("teacher", "streamer1", "streamer2"), ("streamer1", "streamer2")])
def test_classes_on_air_go_on_while_no_streamer_reaches_redis(
    stage: Stage, gates: dict[str, Gate], on_air: Begin, cut: tuple[str, ...]
) -> None:
    """Longer than a lease, and longer than a streamer may be silent: nobody can take a class while nobody is heard."""
    class_id, where, other = on_air()
    for who in cut:
        stage.town.background.run(gates[who].stop())
    try:
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > LOST_S + 8, description="Redis is away for long")
        (push,) = stage.pushes(class_id)
        assert push.ended_at is None
    finally:
        for who in cut:
            stage.town.background.run(gates[who].start())
    back = time.time()

    def heard_anew() -> bool:
        beats = stage.town.redis.hgetall(f"{stage.prefix}:streamers")
        return all(json.loads(beats[stage.name(one)])["at"] > back for one in (where, other))

    wait_until(heard_anew, description="both are heard of again; what Redis has is of before")
    booking = stage.booking(stage.town.record())
    assert stage.answer(stage.book_on_stream(booking))["result"] == "success"
    (push,) = stage.pushes(class_id)
    assert push.ended_at is None
    assert stage.airing(other, class_id) == {}
    stage.cancel_on_stream(class_id)  # the teacher may not listen to its channels again yet
    stage.off_air(class_id)


def test_a_full_redis_cuts_no_class_and_moves_none(stage: Stage, on_air: Begin) -> None:
    """Leases are renewed in it, so no streamer seems lost; what was not sent meanwhile is sent afterwards."""
    class_id, where, _ = on_air()
    later = stage.book(stage.booking(stage.order(class_id)["url_stem"]))
    assert stage.answer(later)["streamer"] == stage.name(where)
    known = losses(stage)
    stage.town.redis.config_set("maxmemory", "1")
    try:
        full_at = time.time()
        wait_until(lambda: time.time() - full_at > LOST_S + 8, description="Redis is full for long")
        beat = json.loads(stage.town.redis.hget(f"{stage.prefix}:streamers", stage.name(where)) or "{}")
        assert beat["at"] > full_at + LOST_S, "it was heard after the time in which it would be lost"
    finally:
        stage.town.redis.config_set("maxmemory", "0")
    (push,) = stage.pushes(class_id)
    assert push.ended_at is None
    assert stage.order(later)["streamer"] == stage.name(where)
    assert losses(stage) == known
    for one in (class_id, later):
        stage.cancel(one)
    stage.off_air(class_id)


def test_a_redis_that_takes_no_writes_cuts_no_class_and_refuses_no_booking(stage: Stage, on_air: Begin) -> None:
    """It became a copy, or its disk is full: what it has of the streamers grows old, and says nothing of them."""
    class_id, *_ = on_air()
    known = losses(stage)
    stage.town.redis.config_set("min-replicas-to-write", "1")
    try:
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > LOST_S + 8, description="no heartbeat is new")
        booked = stage.book(stage.booking(stage.town.record()))
        claimed = "SELECT not_before FROM inbox_list WHERE state = 'new' AND not_before > 0"
        claims = wait_until(lambda: stage.rows("teacher", claimed), description="it is handled")
        wait_until(lambda: stage.rows("teacher", claimed) not in ([], claims), description="it is put off, again")
        assert booked not in stage.ear.answers
    finally:
        stage.town.redis.config_set("min-replicas-to-write", "0")
    assert stage.answer(booked)["result"] == "success"
    (push,) = stage.pushes(class_id)
    assert push.ended_at is None
    assert losses(stage) == known
    stage.cancel(booked)
    stage.cancel(class_id)
    stage.off_air(class_id)
