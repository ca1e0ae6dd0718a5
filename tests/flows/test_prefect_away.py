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
        push = stage.on_air(aired["class_id"], timeout_s=100)
        assert push.first_media_at is not None
        for who in ("teacher", "streamer1"):
            assert "prefect: away" in stage.residents[who].said()
            assert "Traceback" not in stage.residents[who].said()
    finally:
        stage.town.background.run(gate.start())
    wait_until(lambda: stage.order(aired["class_id"])["state"] == "aired", description="the teacher knows")


# Prefect forgets what hosts need of it: they wait, say what to type, and go on then; classes stay on air.


LONG_S = 170
"""Seconds for which a class is on air; its recording takes a tenth of that to be made."""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A teacher and a streamer with a Prefect server that nobody else uses."""
    with Town(tmp_path_factory.mktemp("own")) as town, staged(town, tmp_path_factory.mktemp("lost")) as stage:
        stage.up("teacher", "streamer1")
        yield stage


def put_on_air(stage: Stage) -> str:
    """A class that is on air for the length of a test."""
    booking = stage.booking(stage.town.record(seconds=LONG_S), starts_in_s=12, length_s=LONG_S)
    assert stage.answer(stage.book(booking), timeout_s=60)["result"] == "success"
    stage.on_air(booking["class_id"], timeout_s=60)
    return str(booking["class_id"])


def is_on_air(stage: Stage, class_id: str) -> bool:
    """Whether it is pushed still, by the one push that began it."""
    pushes = stage.pushes(class_id)
    return len(pushes) == 1 and pushes[0].ended_at is None


def deployments(stage: Stage) -> set[str]:
    found = stage.town.api.post("/deployments/filter", json={"limit": 200}).raise_for_status().json()
    return {str(one["id"]) for one in found}


def finds(stage: Stage, class_id: str) -> None:
    """The UI finds the booking by its class, although it was handled before the new deployments were there."""
    wait_until(
        lambda: any(f"class:{class_id}" in one["tags"] for one in stage.runs("teacher", "booking", limit=200)),
        description="it is shown",
    )


def test_a_server_that_was_emptied_ends_no_process(own: Stage) -> None:
    """Its database is lost: the hosts wait, and `lectern init` on each is all that is to be done."""
    class_id = put_on_air(own)
    own.town.servers["prefect"].kill()
    for file in (own.town.folder / "prefect").glob("prefect.db*"):
        file.unlink()
    own.town._wait_for_prefect(own.town.begin("prefect"))
    answered = own.book(own.booking(own.town.record()))
    for who, role in (("teacher", "teacher"), ("streamer1", "streamer")):
        said = len(own.residents[who].said())
        wait_until(
            lambda w, r, s: f"Type: lectern init {r}" in own.residents[w].said()[s:],
            who,
            role,
            said,
            timeout_s=120,
            description=f"{who} says what to type",
        )
    own._initialised.clear()
    own.init("teacher", "streamer1")
    assert own.answer(answered, timeout_s=120)["result"] == "success"
    finds(own, answered)
    assert is_on_air(own, class_id)
    assert [one.exit_code for one in own.residents.values()] == [None, None]


def test_deployments_of_a_newer_release_become_those_of_the_one_that_starts(own: Stage) -> None:
    """As after a rollback: by the newer one's parameters Prefect would refuse every run of the older one."""
    own.residents["teacher"].end()
    path = f"/deployments/name/booking/{own.name('teacher')}"
    before = own.town.api.get(path).raise_for_status().json()
    newer = {"type": "object", "properties": {"mood": {"type": "string"}}, "required": ["mood"]}
    own.change(f"/deployments/{before['id']}", version="99.0.0", parameter_openapi_schema=newer)
    own.up("teacher")
    class_id = own.book(own.booking(own.town.record()))
    assert own.answer(class_id, timeout_s=60)["result"] == "success"
    finds(own, class_id)
    after = own.town.api.get(path).raise_for_status().json()
    assert (after["id"], after["version"]) == (before["id"], before["version"]), "what names it stays valid"
    assert after["parameter_openapi_schema"]["properties"] == before["parameter_openapi_schema"]["properties"]


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
