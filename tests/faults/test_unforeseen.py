"""An error that nobody foresaw, in one step of a living host: its neighbours are served, and what is on air goes on."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.faults.points import AT_START, LAUNCHER, STEPS, Orders, obeying
from tests.stage import Stage, Town, staged, wait_until
from town.ports import HOST, free_port

pytestmark = pytest.mark.night(draw=3)  # each breaks living hosts, or starts them again

WHO = ("teacher", "streamer1")
LONG_S = 400
"""Seconds for which a class is on air that the tests watch, one after the other."""

LEFT_S = 130
"""Seconds that it must be on air yet when a test begins; else it is the next class's turn."""

Faulty = tuple[Stage, Orders, list[dict[str, Any]]]
"""A stage, the errors in its steps, and the bookings of the classes that were watched."""


@pytest.fixture(scope="module")
def faulty_stage(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """A teacher and a streamer whose steps raise when they are told to."""
    folder = tmp_path_factory.mktemp("unforeseen")
    errors = Orders(folder / "errors")
    own = {"RUN_HEARTBEAT_S": "2", "LEASE_S": "60"}  # the class on air outlasts a slow start of its resident
    with staged(town, folder, **own, **obeying(errors)) as stage:
        stage.launcher = LAUNCHER
        stage.own = {who: {name: f"{HOST}:{free_port()}" for name in ("API_BIND", "HEALTH_BIND")} for who in WHO}
        stage.up(*WHO)
        yield stage, errors, []


@pytest.fixture
def on_air(faulty_stage: Faulty) -> str:
    stage, _, watched = faulty_stage
    if not watched or watched[-1]["end_time"] < time.time() + LEFT_S:
        watched.append(stage.booking(stage.town.record(seconds=LONG_S), starts_in_s=15, length_s=LONG_S))
        assert stage.answer(stage.book(watched[-1]), timeout_s=60)["result"] == "success"
        stage.on_air(watched[-1]["class_id"], timeout_s=60)
    return str(watched[-1]["class_id"])


def provoke(stage: Stage, class_id: str) -> None:
    """What must happen for steps to be taken that a booking does not take."""
    stage.tell("streamer1", {"cmd": "release", "class_id": class_id})
    stage.town.redis.hdel(f"{stage.prefix}:streamers:lease", stage.name("streamer1"))  # it asks for a new one
    said = {"cmd": "transcoding", "record_id": 1, "video_resolution": "720P", "result": "failed", "type": "oss"}
    stage.publish("transcoding", said)
    stage.book(stage.booking(stage.town.record(), starts_in_s=15, length_s=5))  # the playout says what becomes of it


def lives_on(stage: Stage) -> None:
    """A booking is answered with success, and both hosts say that they are well."""
    booking = stage.booking(stage.town.record(), starts_in_s=3600)
    assert stage.answer(stage.book(booking), timeout_s=90)["result"] == "success"
    for who in WHO:
        wait_until(lambda w: wrong(stage, w) == [], who, timeout_s=90, description=f"{who} is well")


def wrong(stage: Stage, who: str) -> list[str]:
    bind = stage.own[who]["API_BIND" if who == "teacher" else "HEALTH_BIND"]
    try:
        found: list[str] = httpx.get(f"http://{bind}/health", timeout=10).json()["wrong"]
    except httpx.HTTPError as error:  # a busy host may not answer in time
        return [repr(error)]
    return found


@pytest.mark.parametrize("step", STEPS)
def test_an_error_in_a_step_ends_neither_the_process_nor_what_is_on_air(
    faulty_stage: Faulty, on_air: str, step: str
) -> None:
    stage, errors, _ = faulty_stage
    living, before = dict(stage.residents), len(stage.pushes(on_air))
    taken_back = stage.booking(stage.town.record(), starts_in_s=3600)
    stage.tell("streamer1", {**taken_back, "cmd": "prepare"})
    wait_until(lambda: stage.airing("streamer1", taken_back["class_id"]), description="the streamer has it")
    with errors.raising(step):
        booking = stage.booking(stage.town.record(), starts_in_s=900)
        stage.book(booking)
        provoke(stage, taken_back["class_id"])
        errors.wait_for(step, 2, timeout_s=90)
    lives_on(stage)
    if step != "a recording is downloaded":  # an error that nobody foresaw is final there, and is answered
        assert stage.answer(booking["class_id"], timeout_s=90)["result"] == "success"
    assert {who: child.exit_code for who, child in living.items()} == dict.fromkeys(living)
    assert stage.pushes(on_air)[before:] == []
    assert stage.pushes(on_air)[-1].ended_at is None


@pytest.mark.parametrize("step", AT_START)
def test_an_error_at_the_start_keeps_no_host_down(faulty_stage: Faulty, on_air: str, step: str) -> None:
    """The class on air goes on although the step fails; all other steps are taken meanwhile."""
    stage, errors, _ = faulty_stage
    with errors.raising(step):
        for who in WHO:
            stage.residents[who].kill()
            stage.serve(who)
        errors.wait_for(step, 1 if step == "the disk is looked through" else 2, timeout_s=120)
    assert stage.pushes(on_air)[-1].ended_at is None
    stage.residents["teacher"].wait_for("listens on")  # what is published before that is heard by nobody
    lives_on(stage)
    assert [stage.residents[who].exit_code for who in WHO] == [None, None]


def test_a_lease_that_its_process_died_before_holding_takes_no_class_off_the_air(
    faulty_stage: Faulty, on_air: str
) -> None:
    """Redis has lost the lease, and names a session that nobody alive has asked for: nothing was taken by that."""
    stage, errors, _ = faulty_stage
    before, dying = stage.pushes(on_air), stage.residents["streamer1"]
    errors.strike("lease granted, not held", "kill")
    stage.town.redis.hdel(f"{stage.prefix}:streamers:lease", stage.name("streamer1"))
    wait_until(lambda: dying.exit_code is not None, timeout_s=60, description="it dies")
    stage.serve("streamer1")
    stage.residents["streamer1"].wait_for("lease: held")
    assert [(one.n, one.ended_at) for one in stage.pushes(on_air)] == [(one.n, None) for one in before]
