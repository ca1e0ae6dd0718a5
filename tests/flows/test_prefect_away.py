"""Prefect is the executor and the cockpit, not the truth: bookings outlive its absence, and a process's death."""

import json
import time
from collections.abc import Iterator

import pytest

from tests.stage import PROMPT_S, Gate, Stage, Town, staged, wait_until

pytestmark = pytest.mark.timeout(300)  # the first test of a session starts the servers


@pytest.fixture(scope="module")
def walled(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Gate]]:
    """A teacher and a streamer that reach Prefect through a gate."""
    gate = Gate(town.prefect_port)
    town.background.run(gate.start())
    url = f"http://127.0.0.1:{gate.port}/api"
    with staged(town, tmp_path_factory.mktemp("walled"), PREFECT_API_URL=url, BROADCAST_LEAD_S="10") as found:
        found.up("teacher", "streamer1")
        yield found, gate
    town.background.run(gate.stop())


def waiting(stage: Stage, class_id: str) -> bool:
    """Whether the booking is kept in the inbox and not handled."""
    wanted = "select 1 from inbox_list where state = 'new' and body like ?"
    return bool(stage.rows("teacher", wanted, f'%"{class_id}"%'))


def test_bookings_are_kept_while_prefect_is_away(walled: tuple[Stage, Gate]) -> None:
    """And answered, once each, when it is back."""
    stage, gate = walled
    record = stage.town.record()
    stage.town.background.run(gate.stop())
    several = [stage.book(stage.booking(record)) for _ in range(3)]
    try:
        wait_until(lambda: all(waiting(stage, one) for one in several), description="the bookings are kept")
        stage.residents["teacher"].wait_for("wait in the inbox")
        assert not any(stage.ear.answers[one] for one in several)
    finally:
        stage.town.background.run(gate.start())
    assert [stage.answer(one, timeout_s=90)["result"] for one in several] == ["success"] * 3
    assert [len(stage.ear.answers[one]) for one in several] == [1, 1, 1]


def test_a_killed_teacher_answers_when_it_is_started_again(walled: tuple[Stage, Gate]) -> None:
    """Killed between the inbox's commit and the answer: nothing is lost, nothing is done twice."""
    stage, gate = walled
    record = stage.town.record()
    stage.town.background.run(gate.stop())
    class_id = stage.book(stage.booking(record))
    try:
        wait_until(lambda: waiting(stage, class_id), description="the booking is kept")
        stage.residents["teacher"].kill()
    finally:
        stage.town.background.run(gate.start())
    assert stage.ear.answers[class_id] == []
    stage.up("teacher")
    assert stage.answer(class_id, timeout_s=60)["result"] == "success"
    assert stage.num_cite("streamer1", str(record)) == 1


def test_what_a_stream_holds_is_read_by_the_next_process(walled: tuple[Stage, Gate]) -> None:
    """A channel forgets what is sent while nobody listens, a stream does not."""
    stage, _ = walled
    stage.residents["teacher"].kill()
    booking = stage.booking(stage.town.record())
    stage.town.redis.xadd(stage.channels["order"], {"body": json.dumps(booking)})
    stage.up("teacher")
    assert stage.answer(booking["class_id"], timeout_s=60)["result"] == "success"


def test_a_class_goes_on_air_while_prefect_is_away(walled: tuple[Stage, Gate]) -> None:
    """Without a run, at its second; and a cancel still ends it."""
    stage, gate = walled
    aired = stage.booking(stage.town.record(), starts_in_s=40, length_s=14)
    stopped = stage.booking(stage.town.record(), starts_in_s=40, length_s=40)
    for one in (aired, stopped):
        assert stage.answer(stage.book(one))["result"] == "success"
    for one in (aired, stopped):
        assert one["start_time"] - 10 > time.time(), "the machine is too slow for this test"
    stage.town.background.run(gate.stop())
    try:
        push = stage.on_air(aired["class_id"], timeout_s=60)
        assert push.first_media_at is not None
        assert 0 <= push.first_media_at - aired["start_time"] < PROMPT_S
        stage.on_air(stopped["class_id"])
        stage.tell("streamer1", {"cmd": "release", "class_id": stopped["class_id"]})
    finally:
        stage.town.background.run(gate.start())
    (cut,) = stage.off_air(stopped["class_id"])
    assert cut.ended_at is not None
    assert cut.ended_at < stopped["end_time"] - 5
    assert len(stage.off_air(aired["class_id"])) == 1
    wait_until(lambda: stage.order(aired["class_id"])["state"] == "aired", description="the teacher knows")


def test_hosts_begin_and_air_although_prefect_is_away(walled: tuple[Stage, Gate]) -> None:
    """As after a power cut: a class that begins soon is aired, a booking on the channel is kept, and answered later."""
    stage, gate = walled
    aired = stage.booking(stage.town.record(), starts_in_s=75, length_s=14)
    assert stage.answer(stage.book(aired), timeout_s=60)["result"] == "success"
    stage.town.background.run(gate.stop())
    try:
        for who in ("teacher", "streamer1"):
            stage.residents[who].kill()
            stage.serve(who)
        stage.residents["teacher"].wait_for("listens on")
        booked = stage.book(stage.booking(stage.town.record()))
        wait_until(lambda: waiting(stage, booked), description="the booking is kept")
        push = stage.on_air(aired["class_id"], timeout_s=100)
        assert push.first_media_at is not None
        for who in ("teacher", "streamer1"):
            assert "prefect: away" in stage.residents[who].said()
            assert "Traceback" not in stage.residents[who].said()
    finally:
        stage.town.background.run(gate.start())
    assert stage.answer(booked, timeout_s=90)["result"] == "success"
    wait_until(lambda: stage.order(aired["class_id"])["state"] == "aired", description="the teacher knows")
