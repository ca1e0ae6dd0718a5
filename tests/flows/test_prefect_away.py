"""Prefect is the cockpit, not the truth: bookings are answered without it, and outlive a process's death."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from lectern.db import inbox
from tests.stage import PROMPT_S, Gate, Stage, Town, staged, wait_until

pytestmark = pytest.mark.live


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


def shown(stage: Stage, who: str) -> list[int]:
    """The ids of the inbox that all runs of *who* name, each as often as it is named."""
    runs = [one for flow in ("booking", "prepare", "report") for one in stage.runs(who, flow, limit=200)]
    return sorted(id_ for one in runs for id_ in inbox.parse_id_ranges(one["parameters"].get("inbox_ids", "")))


def all_shown(stage: Stage, who: str) -> bool:
    """Whether no message of a flow is handled and not shown."""
    unshown = "select 1 from inbox_list where recorded_at is null and command not in ('grant', 'release')"
    return not stage.rows(who, unshown)


def test_bookings_are_answered_while_prefect_is_away(walled: tuple[Stage, Gate]) -> None:
    """Also where a recording must be downloaded first; and each is shown once when it is back."""
    stage, gate = walled
    cached = stage.town.record()
    assert stage.answer(stage.book(stage.booking(cached)), timeout_s=60)["result"] == "success"
    stage.town.background.run(gate.stop())
    try:
        several = [stage.book(stage.booking(cached)) for _ in range(3)]
        assert [stage.answer(one, timeout_s=60)["result"] for one in several] == ["success"] * 3
        downloaded = stage.book(stage.booking(stage.town.record()))
        assert stage.answer(downloaded, timeout_s=60)["result"] == "success"
        assert "its work is done without" in stage.residents["streamer1"].said()
    finally:
        stage.town.background.run(gate.start())
    for who in ("teacher", "streamer1"):
        wait_until(lambda w: all_shown(stage, w), who, description=f"{who} has shown it")
        ids = shown(stage, who)
        assert ids == sorted(set(ids)), "each once"
    assert [len(stage.ear.answers[one]) for one in several] == [1, 1, 1]
    assert {f"class:{one}" for one in several} <= {
        tag for one in stage.runs("teacher", "booking", limit=200) for tag in one["tags"]
    }


def test_a_killed_teacher_shows_afterwards_what_it_had_answered(walled: tuple[Stage, Gate]) -> None:
    """Killed between the answer and the showing: shown once."""
    stage, gate = walled
    record = stage.town.record()
    assert stage.answer(stage.book(stage.booking(record)), timeout_s=60)["result"] == "success"
    stage.town.background.run(gate.stop())
    class_id = stage.book(stage.booking(record))
    try:
        assert stage.answer(class_id, timeout_s=20)["result"] == "success"
        stage.residents["teacher"].kill()
    finally:
        stage.town.background.run(gate.start())
    stage.up("teacher")
    wait_until(lambda: all_shown(stage, "teacher"), description="it is shown")
    ids = shown(stage, "teacher")
    assert ids == sorted(set(ids)), "each once"
    assert len([one for one in stage.runs("teacher", "booking", limit=200) if f"class:{class_id}" in one["tags"]]) == 1
    assert len(stage.ear.answers[class_id]) == 1
    assert stage.num_cite("streamer1", str(record)) == 2


def answered_ahead(stage: Stage, *lengths_s: float) -> list[dict[str, Any]]:
    """Booked classes that are answered before any run of theirs is due, on a busy machine, too."""
    for ahead_s in (25, 60, 180):
        bookings = [stage.booking(stage.town.record(), starts_in_s=ahead_s, length_s=one) for one in lengths_s]
        for booking in bookings:
            assert stage.answer(stage.book(booking), timeout_s=ahead_s)["result"] == "success"
        if all(booking["start_time"] - 10 > time.time() for booking in bookings):
            return bookings
        for booking in bookings:
            stage.cancel(booking["class_id"])
    raise AssertionError("no class was answered 10 s before its start")


def test_a_class_goes_on_air_while_prefect_is_away(walled: tuple[Stage, Gate]) -> None:
    """Without a run, at its second; and a cancel still ends it."""
    stage, gate = walled
    aired, stopped = answered_ahead(stage, 14, 40)
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
    """As after a power cut: a class that begins soon is aired, a booking on the channel is answered."""
    stage, gate = walled
    aired = stage.booking(stage.town.record(), starts_in_s=45, length_s=20)
    assert stage.answer(stage.book(aired), timeout_s=60)["result"] == "success"
    stage.town.background.run(gate.stop())
    try:
        for who in ("teacher", "streamer1"):
            stage.residents[who].kill()
            stage.serve(who)
        stage.residents["teacher"].wait_for("listens on")
        booked = stage.book(stage.booking(stage.town.record()))
        assert stage.answer(booked, timeout_s=90)["result"] == "success"
        wait_until(
            lambda: [one for one in stage.pushes(aired["class_id"]) if one.first_media_at is not None],
            timeout_s=100,
            description="it is on air, or was while the hosts began",
        )
        for who in ("teacher", "streamer1"):
            assert "prefect: away" in stage.residents[who].said()
            assert "Traceback" not in stage.residents[who].said()
    finally:
        stage.town.background.run(gate.start())
    wait_until(lambda: stage.order(aired["class_id"])["state"] == "aired", description="the teacher knows")
