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
from tests.stage import Gate, Stage, Town, staged, wait_until

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
def two_streamers(town: Town, gates: dict[str, Gate], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
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
def on_air(two_streamers: Stage) -> Begin:
    """Puts a class on air: its class_id, the streamer that has it, and the other one."""
    two_streamers.up("teacher", "streamer1", "streamer2")

    def begin(length_s: float = 85) -> tuple[str, str, str]:
        def heard(since: dict[str, float]) -> dict[str, float]:
            """When each streamer that takes classes last spoke; those that have not spoken after *since* are left."""
            told: Any = two_streamers.town.redis.hgetall(f"{two_streamers.prefix}:streamers")
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
        booking = two_streamers.booking(two_streamers.town.record(seconds=90), starts_in_s=8, length_s=length_s)
        class_id = two_streamers.book_on_stream(
            booking
        )  # after a test before, the teacher may not hear its channels yet
        where = two_streamers.answer(class_id)["streamer"].removeprefix(f"{two_streamers.prefix}-")
        two_streamers.on_air(class_id)
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
    two_streamers: Stage, on_air: Begin, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the clock's position, within 10 s after the streamer counts as lost; the platform hears nothing of it."""
    class_id, dead, other = on_air()
    record = two_streamers.order(class_id)["url_stem"]
    later = two_streamers.book(two_streamers.booking(record))
    assert two_streamers.answer(later)["streamer"] == two_streamers.name(dead)
    two_streamers.residents[dead].kill()
    killed_at = time.time()
    taken_over(two_streamers, class_id, other, LOST_S + 60)
    _, second, *_ = two_streamers.pushes(class_id)
    assert second.first_media_at is not None
    assert not second.concurrent
    with capsys.disabled():
        took_s = second.first_media_at - killed_at - LOST_S
        sys.stdout.write(f" [taken over {took_s:.1f} s after the streamer counts as lost] ")
    start = two_streamers.order(class_id)["start_time"]
    assert (
        abs(two_streamers.position_s(record, second) - (second.first_media_at - start)) < 2.5
    )  # a key picture every 2 s
    wait_until(
        lambda: two_streamers.order(later)["streamer"] == two_streamers.name(other),
        description="the later class is moved",
    )
    wait_until(lambda: two_streamers.order(later)["state"] == "ready", description="it is prepared anew")
    assert len(two_streamers.ear.answers[class_id]) == len(two_streamers.ear.answers[later]) == 1
    assert two_streamers.alarms(322)
    two_streamers.cancel(class_id)
    two_streamers.cancel(later)
    two_streamers.up(dead)
    wait_until(lambda: two_streamers.num_cite(dead, str(record)) == 0, description="the dead one hears of it")
    assert two_streamers.airing(dead, class_id)["state"] == "cancelled"


def test_a_drained_streamer_gives_its_classes_away_but_airs_what_began(two_streamers: Stage, on_air: Begin) -> None:
    """Nothing is cut, nobody is answered twice, and no class comes to it until the drain is ended."""
    class_id, drained, other = on_air()
    later = two_streamers.book(two_streamers.booking(two_streamers.order(class_id)["url_stem"]))
    assert two_streamers.answer(later)["streamer"] == two_streamers.name(drained)
    found = two_streamers.lectern(drained, "drain", "--within", "40", "--json")
    told = json.loads(found.stdout)
    assert (found.returncode, told["empty"], told["on_air"]) == (1, False, [class_id]), found.stderr
    assert told["others"] == [two_streamers.name(other)]
    assert told["waiting"] == [], "the class of later was moved"
    wait_until(lambda: two_streamers.order(later)["state"] == "ready", description="it is prepared anew")
    assert two_streamers.order(later)["streamer"] == two_streamers.name(other)
    moved = f"{two_streamers.name(drained)} is drained by {options.me()}"
    assert moved in two_streamers.lectern("teacher", "explain", later).stdout
    new = two_streamers.book(two_streamers.booking(two_streamers.order(class_id)["url_stem"]))
    assert two_streamers.answer(new)["streamer"] == two_streamers.name(other)
    assert len(two_streamers.pushes(class_id)) == 1, "what is on air is not touched"
    two_streamers.cancel(class_id)
    two_streamers.off_air(class_id)
    empty = two_streamers.lectern(drained, "drain", "--within", "60")
    assert empty.returncode == 0, empty.stdout + empty.stderr
    assert "Nothing waits here" in empty.stdout
    assert two_streamers.lectern(drained, "drain", "--off").returncode == 0

    def is_open() -> bool:
        beat = json.loads(
            two_streamers.town.redis.hget(f"{two_streamers.prefix}:streamers", two_streamers.name(drained)) or "{}"
        )
        return beat.get("full") is False

    wait_until(is_open, description="it gets classes again")
    assert len(two_streamers.ear.answers[later]) == 1
    for one in (later, new):
        two_streamers.cancel(one)


def test_a_streamer_that_is_back_at_the_old_program_keeps_its_classes(two_streamers: Stage, on_air: Begin) -> None:
    """It is not missed, for the old program airs them; leased again it goes on with them."""
    class_id, gone, _ = on_air()
    later = two_streamers.book(two_streamers.booking(two_streamers.order(class_id)["url_stem"]))
    assert two_streamers.answer(later)["streamer"] == two_streamers.name(gone)
    known = losses(two_streamers)
    two_streamers.cancel(class_id)
    two_streamers.off_air(class_id)
    two_streamers.residents[gone].end()
    key, redis = f"{two_streamers.prefix}:streamers", two_streamers.town.redis
    client.say_withdrawn(redis, key, two_streamers.name(gone))
    wait_until(
        lambda: client.withdrawal_is_read(redis, key, two_streamers.name(gone)), description="the teacher has read it"
    )
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > LOST_S + 5, timeout_s=LOST_S + 10, description="it would be missed")
    assert two_streamers.order(later)["streamer"] == two_streamers.name(gone)
    assert losses(two_streamers) == known
    two_streamers.up(gone)
    wait_until(lambda: redis.hget(f"{key}:lease", two_streamers.name(gone)), description="it is leased again")
    assert two_streamers.order(later)["state"] == "ready"
    two_streamers.cancel(later)
    wait_until(lambda: two_streamers.airing(gone, later)["state"] == "cancelled", description="it hears again")


def test_a_stopped_streamer_pushes_nothing_when_its_lease_has_run_out(two_streamers: Stage, on_air: Begin) -> None:
    """Although it cannot do anything itself; and when it goes on, it finds that the class is another's."""
    class_id, stopped, other = on_air()
    record = two_streamers.order(class_id)["url_stem"]
    two_streamers.residents[stopped].pause()
    two_streamers.off_air(class_id, timeout_s=LEASE_S + 5)
    taken_over(two_streamers, class_id, other, LOST_S + 60)
    two_streamers.residents[stopped].go_on()
    wait_until(lambda: two_streamers.num_cite(stopped, str(record)) == 0, description="it hears of it")
    assert two_streamers.airing(stopped, class_id)["state"] == "cancelled"
    assert sum(one.ended_at is None for one in two_streamers.pushes(class_id)) == 1
    assert not any(one.concurrent for one in two_streamers.pushes(class_id))
    assert two_streamers.order(class_id)["streamer"] == two_streamers.name(other)
    two_streamers.cancel(class_id)
    two_streamers.off_air(class_id)


def test_a_streamer_that_does_not_reach_redis_hears_of_the_move_from_prefect(
    two_streamers: Stage, gates: dict[str, Gate], on_air: Begin
) -> None:
    """Until then it goes on, longer than its lease; it stops before the other begins."""
    class_id, cut, other = on_air()
    two_streamers.town.background.run(gates[cut].stop())
    try:
        taken_over(two_streamers, class_id, other, LOST_S + 60)
        first, second, *_ = two_streamers.pushes(class_id)
        assert first.last_media_at is not None
        assert second.first_media_at is not None
        assert first.last_media_at - first.started_at > LEASE_S + 2
        assert not second.concurrent
    finally:
        two_streamers.town.background.run(gates[cut].start())
    wait_until(lambda: two_streamers.airing(cut, class_id)["state"] == "cancelled", description="it hears of it")
    assert not any(one.concurrent for one in two_streamers.pushes(class_id))
    two_streamers.cancel(class_id)
    two_streamers.off_air(class_id)


@pytest.mark.parametrize("cut", [("teacher", "streamer1", "streamer2"), ("streamer1", "streamer2")])
def test_classes_on_air_go_on_while_no_streamer_reaches_redis(
    two_streamers: Stage, gates: dict[str, Gate], on_air: Begin, cut: tuple[str, ...]
) -> None:
    """Longer than a lease, and longer than a streamer may be silent: nobody can take a class while nobody is heard."""
    class_id, where, other = on_air()
    for who in cut:
        two_streamers.town.background.run(gates[who].stop())
    try:
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > LOST_S + 8, description="Redis is away for long")
        (push,) = two_streamers.pushes(class_id)
        assert push.ended_at is None
    finally:
        for who in cut:
            two_streamers.town.background.run(gates[who].start())
    back = time.time()

    def heard_anew() -> bool:
        beats = two_streamers.town.redis.hgetall(f"{two_streamers.prefix}:streamers")
        return all(json.loads(beats[two_streamers.name(one)])["at"] > back for one in (where, other))

    wait_until(heard_anew, description="both are heard of again; what Redis has is of before")
    booking = two_streamers.booking(two_streamers.town.record())
    assert two_streamers.answer(two_streamers.book_on_stream(booking))["result"] == "success"
    (push,) = two_streamers.pushes(class_id)
    assert push.ended_at is None
    assert two_streamers.airing(other, class_id) == {}
    two_streamers.cancel_on_stream(class_id)  # the teacher may not listen to its channels again yet
    two_streamers.off_air(class_id)


def test_a_full_redis_cuts_no_class_and_moves_none(two_streamers: Stage, on_air: Begin) -> None:
    """Leases are renewed in it, so no streamer seems lost; what was not sent meanwhile is sent afterwards."""
    class_id, where, _ = on_air()
    later = two_streamers.book(two_streamers.booking(two_streamers.order(class_id)["url_stem"]))
    assert two_streamers.answer(later)["streamer"] == two_streamers.name(where)
    known = losses(two_streamers)
    two_streamers.town.redis.config_set("maxmemory", "1")
    try:
        full_at = time.time()
        wait_until(lambda: time.time() - full_at > LOST_S + 8, description="Redis is full for long")
        beat = json.loads(
            two_streamers.town.redis.hget(f"{two_streamers.prefix}:streamers", two_streamers.name(where)) or "{}"
        )
        assert beat["at"] > full_at + LOST_S, "it was heard after the time in which it would be lost"
    finally:
        two_streamers.town.redis.config_set("maxmemory", "0")
    (push,) = two_streamers.pushes(class_id)
    assert push.ended_at is None
    assert two_streamers.order(later)["streamer"] == two_streamers.name(where)
    assert losses(two_streamers) == known
    for one in (class_id, later):
        two_streamers.cancel(one)
    two_streamers.off_air(class_id)


def test_a_redis_that_takes_no_writes_cuts_no_class_and_refuses_no_booking(two_streamers: Stage, on_air: Begin) -> None:
    """It became a copy, or its disk is full: what it has of the streamers grows old, and says nothing of them."""
    class_id, *_ = on_air()
    known = losses(two_streamers)
    two_streamers.town.redis.config_set("min-replicas-to-write", "1")
    try:
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > LOST_S + 8, description="no heartbeat is new")
        booked = two_streamers.book(two_streamers.booking(two_streamers.town.record()))
        claimed = "SELECT not_before FROM inbox_list WHERE state = 'new' AND not_before > 0"
        claims = wait_until(lambda: two_streamers.rows("teacher", claimed), description="it is handled")
        wait_until(
            lambda: two_streamers.rows("teacher", claimed) not in ([], claims), description="it is put off, again"
        )
        assert booked not in two_streamers.ear.answers
    finally:
        two_streamers.town.redis.config_set("min-replicas-to-write", "0")
    assert two_streamers.answer(booked)["result"] == "success"
    (push,) = two_streamers.pushes(class_id)
    assert push.ended_at is None
    assert losses(two_streamers) == known
    two_streamers.cancel(booked)
    two_streamers.cancel(class_id)
    two_streamers.off_air(class_id)
