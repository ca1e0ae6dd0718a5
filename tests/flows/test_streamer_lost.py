"""A streamer is lost: its classes are moved to another, and two streamers never push the same class."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lectern.effects.redis import withdrawn
from tests.stage import Gate, Stage, Town, staged, wait_until

pytestmark = pytest.mark.live

LOST_S = 20
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
def pair(town: Town, gates: dict[str, Gate], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
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
def on_air(pair: Stage) -> Begin:
    """Puts a class on air: its class_id, the streamer that has it, and the other one."""
    pair.up("teacher", "streamer1", "streamer2")

    def begin(length_s: float = 85) -> tuple[str, str, str]:
        def both_live() -> bool:
            told: Any = pair.town.redis.hvals(f"{pair.prefix}:streamers")
            beats: list[dict[str, Any]] = [json.loads(one) for one in told]
            return sum(bool(time.time() - one["at"] < LOST_S / 2 and one.get("full") is False) for one in beats) == 2

        wait_until(both_live, description="both streamers are heard of")
        booking = pair.booking(pair.town.record(seconds=90), starts_in_s=8, length_s=length_s)
        class_id = pair.book_on_stream(booking)  # after a test before, the teacher may not hear its channels yet
        where = pair.answer(class_id)["streamer"].removeprefix(f"{pair.prefix}-")
        pair.on_air(class_id)
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
    pair: Stage, on_air: Begin, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the clock's position, within 10 s after the streamer counts as lost; the platform hears nothing of it."""
    class_id, dead, other = on_air()
    record = pair.order(class_id)["url_stem"]
    later = pair.book(pair.booking(record))
    assert pair.answer(later)["streamer"] == pair.name(dead)
    pair.residents[dead].kill()
    killed_at = time.time()
    taken_over(pair, class_id, other, LOST_S + 60)
    _, second, *_ = pair.pushes(class_id)
    assert second.first_media_at is not None
    assert not second.concurrent
    with capsys.disabled():
        took_s = second.first_media_at - killed_at - LOST_S
        sys.stdout.write(f" [taken over {took_s:.1f} s after the streamer counts as lost] ")
    start = pair.order(class_id)["start_time"]
    assert abs(pair.position_s(record, second) - (second.first_media_at - start)) < 2.5  # a key picture every 2 s
    wait_until(lambda: pair.order(later)["streamer"] == pair.name(other), description="the later class is moved")
    wait_until(lambda: pair.order(later)["state"] == "ready", description="it is prepared anew")
    assert len(pair.ear.answers[class_id]) == len(pair.ear.answers[later]) == 1
    assert pair.alarms(322)
    pair.cancel(class_id)
    pair.cancel(later)
    pair.up(dead)
    wait_until(lambda: pair.num_cite(dead, str(record)) == 0, description="the dead one hears of it")
    assert pair.airing(dead, class_id)["state"] == "cancelled"


def test_a_drained_streamer_gives_its_classes_away_and_airs_what_it_has_begun(pair: Stage, on_air: Begin) -> None:
    """Nothing is cut, nobody is answered twice, and no class comes to it until the drain is ended."""
    class_id, drained, other = on_air()
    later = pair.book(pair.booking(pair.order(class_id)["url_stem"]))
    assert pair.answer(later)["streamer"] == pair.name(drained)
    found = pair.lectern(drained, "drain", "--within", "40", "--json")
    told = json.loads(found.stdout)
    assert (found.returncode, told["empty"], told["on_air"]) == (1, False, [class_id]), found.stderr
    assert told["others"] == [pair.name(other)]
    assert told["waiting"] == [], "the class of later was moved"
    wait_until(lambda: pair.order(later)["state"] == "ready", description="it is prepared anew")
    assert pair.order(later)["streamer"] == pair.name(other)
    new = pair.book(pair.booking(pair.order(class_id)["url_stem"]))
    assert pair.answer(new)["streamer"] == pair.name(other)
    assert len(pair.pushes(class_id)) == 1, "what is on air is not touched"
    pair.cancel(class_id)
    pair.off_air(class_id)
    empty = pair.lectern(drained, "drain", "--within", "60")
    assert empty.returncode == 0, empty.stdout + empty.stderr
    assert "Nothing waits here" in empty.stdout
    assert pair.lectern(drained, "drain", "--off").returncode == 0

    def is_open() -> bool:
        beat = json.loads(pair.town.redis.hget(f"{pair.prefix}:streamers", pair.name(drained)) or "{}")
        return beat.get("full") is False

    wait_until(is_open, description="it gets classes again")
    assert len(pair.ear.answers[later]) == 1
    for one in (later, new):
        pair.cancel(one)


def test_a_streamer_that_is_back_at_the_old_program_keeps_its_classes(pair: Stage, on_air: Begin) -> None:
    """It is not missed, for the old program airs them; leased again it goes on with them."""
    class_id, gone, _ = on_air()
    later = pair.book(pair.booking(pair.order(class_id)["url_stem"]))
    assert pair.answer(later)["streamer"] == pair.name(gone)
    known = losses(pair)
    pair.cancel(class_id)
    pair.off_air(class_id)
    pair.residents[gone].end()
    key, redis = f"{pair.prefix}:streamers", pair.town.redis
    withdrawn.say(redis, key, pair.name(gone))
    wait_until(lambda: withdrawn.is_read(redis, key, pair.name(gone)), description="the teacher has read it")
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > LOST_S + 5, timeout_s=LOST_S + 10, description="it would be missed")
    assert pair.order(later)["streamer"] == pair.name(gone)
    assert losses(pair) == known
    pair.up(gone)
    wait_until(lambda: redis.hget(f"{key}:lease", pair.name(gone)), description="it is leased again")
    assert pair.order(later)["state"] == "ready"
    pair.cancel(later)
    wait_until(lambda: pair.airing(gone, later)["state"] == "cancelled", description="it hears again")


def test_a_stopped_streamer_pushes_nothing_when_its_lease_has_run_out(pair: Stage, on_air: Begin) -> None:
    """Although it cannot do anything itself; and when it goes on, it finds that the class is another's."""
    class_id, stopped, other = on_air()
    record = pair.order(class_id)["url_stem"]
    pair.residents[stopped].pause()
    pair.off_air(class_id, timeout_s=LEASE_S + 5)
    taken_over(pair, class_id, other, LOST_S + 60)
    pair.residents[stopped].go_on()
    wait_until(lambda: pair.num_cite(stopped, str(record)) == 0, description="it hears of it")
    assert pair.airing(stopped, class_id)["state"] == "cancelled"
    assert sum(one.ended_at is None for one in pair.pushes(class_id)) == 1
    assert not any(one.concurrent for one in pair.pushes(class_id))
    assert pair.order(class_id)["streamer"] == pair.name(other)
    pair.cancel(class_id)
    pair.off_air(class_id)


def test_a_streamer_that_does_not_reach_redis_hears_of_the_move_from_prefect(
    pair: Stage, gates: dict[str, Gate], on_air: Begin
) -> None:
    """Until then it goes on, longer than its lease; it stops before the other begins."""
    class_id, cut, other = on_air()
    pair.town.background.run(gates[cut].stop())
    try:
        taken_over(pair, class_id, other, LOST_S + 60)
        first, second, *_ = pair.pushes(class_id)
        assert first.last_media_at is not None
        assert second.first_media_at is not None
        assert first.last_media_at - first.started_at > LEASE_S + 2
        assert not second.concurrent
    finally:
        pair.town.background.run(gates[cut].start())
    wait_until(lambda: pair.airing(cut, class_id)["state"] == "cancelled", description="it hears of it")
    assert not any(one.concurrent for one in pair.pushes(class_id))
    pair.cancel(class_id)
    pair.off_air(class_id)


@pytest.mark.parametrize("cut", [("teacher", "streamer1", "streamer2"), ("streamer1", "streamer2")])
def test_classes_on_air_go_on_while_no_streamer_reaches_redis(
    pair: Stage, gates: dict[str, Gate], on_air: Begin, cut: tuple[str, ...]
) -> None:
    """Longer than a lease, and longer than a streamer may be silent: nobody can take a class while nobody is heard."""
    class_id, where, other = on_air()
    for who in cut:
        pair.town.background.run(gates[who].stop())
    try:
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > LOST_S + 8, description="Redis is away for long")
        (push,) = pair.pushes(class_id)
        assert push.ended_at is None
    finally:
        for who in cut:
            pair.town.background.run(gates[who].start())
    back = time.time()

    def heard_anew() -> bool:
        beats = pair.town.redis.hgetall(f"{pair.prefix}:streamers")
        return all(json.loads(beats[pair.name(one)])["at"] > back for one in (where, other))

    wait_until(heard_anew, description="both are heard of again; what Redis has is of before")
    booking = pair.booking(pair.town.record())
    assert pair.answer(pair.book_on_stream(booking))["result"] == "success"
    (push,) = pair.pushes(class_id)
    assert push.ended_at is None
    assert pair.airing(other, class_id) == {}
    pair.cancel_on_stream(class_id)  # the teacher may not listen to its channels again yet
    pair.off_air(class_id)


def test_a_full_redis_cuts_no_class_and_moves_none(pair: Stage, on_air: Begin) -> None:
    """Leases are renewed in it, so no streamer seems lost; what was not sent meanwhile is sent afterwards."""
    class_id, where, _ = on_air()
    later = pair.book(pair.booking(pair.order(class_id)["url_stem"]))
    assert pair.answer(later)["streamer"] == pair.name(where)
    known = losses(pair)
    pair.town.redis.config_set("maxmemory", "1")
    try:
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > LOST_S + 8, description="Redis is full for long")
        beat = json.loads(pair.town.redis.hget(f"{pair.prefix}:streamers", pair.name(where)) or "{}")
        assert time.time() - beat["at"] < LOST_S / 2
    finally:
        pair.town.redis.config_set("maxmemory", "0")
    (push,) = pair.pushes(class_id)
    assert push.ended_at is None
    assert pair.order(later)["streamer"] == pair.name(where)
    assert losses(pair) == known
    for one in (class_id, later):
        pair.cancel(one)
    pair.off_air(class_id)


def test_a_redis_that_takes_no_writes_cuts_no_class_and_refuses_no_booking(pair: Stage, on_air: Begin) -> None:
    """It became a copy, or its disk is full: what it has of the streamers grows old, and says nothing of them."""
    class_id, *_ = on_air()
    known = losses(pair)
    pair.town.redis.config_set("min-replicas-to-write", "1")
    try:
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > LOST_S + 8, description="no heartbeat is new")
        booked = pair.book(pair.booking(pair.town.record()))
        claimed = "SELECT not_before FROM inbox_list WHERE state = 'new' AND not_before > 0"
        claims = wait_until(lambda: pair.rows("teacher", claimed), description="it is handled")
        wait_until(lambda: pair.rows("teacher", claimed) not in ([], claims), description="it is put off, again")
        assert booked not in pair.ear.answers
    finally:
        pair.town.redis.config_set("min-replicas-to-write", "0")
    assert pair.answer(booked)["result"] == "success"
    (push,) = pair.pushes(class_id)
    assert push.ended_at is None
    assert losses(pair) == known
    pair.cancel(booked)
    pair.cancel(class_id)
    pair.off_air(class_id)
