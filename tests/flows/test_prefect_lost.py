"""Prefect is the cockpit, not the truth: without it hosts begin, answer and air; what it forgets, they say."""

from collections.abc import Iterator

import pytest

from tests.stage import Stage, Town, staged, wait_until

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A teacher and a streamer with a Prefect server that nobody else uses."""
    with Town(tmp_path_factory.mktemp("own")) as town, staged(town, tmp_path_factory.mktemp("lost")) as stage:
        stage.up("teacher", "streamer1")
        yield stage


def test_hosts_begin_and_air_although_prefect_is_away(own: Stage) -> None:
    """As after a power cut: a class that begins soon is aired, a booking is answered, downloaded, and shown later."""
    aired = own.booking(own.town.record(), starts_in_s=45, length_s=20)
    assert own.answer(own.book(aired), timeout_s=60)["result"] == "success"
    own.town.rest()
    try:
        for who in ("teacher", "streamer1"):
            own.residents[who].kill()
            own.serve(who)
        own.residents["teacher"].wait_for("listens on")
        booked = own.book(own.booking(own.town.record()))
        assert own.answer(booked, timeout_s=90)["result"] == "success"
        wait_until(
            lambda: [one for one in own.pushes(aired["class_id"]) if one.first_media_at is not None],
            timeout_s=100,
            description="it is on air, or was while the hosts began",
        )
        assert "its work is done without" in own.residents["streamer1"].said()
        for who in ("teacher", "streamer1"):
            assert "prefect: away" in own.residents[who].said()
            assert "Traceback" not in own.residents[who].said()
    finally:
        own.town.wake()
    wait_until(lambda: own.order(aired["class_id"])["state"] == "aired", description="the teacher knows")
    wait_until(lambda: own.runs("teacher", "booking", tags=[f"class:{booked}"]), description="it is shown")
    assert len(own.ear.answers[booked]) == 1


def test_a_server_that_was_emptied_ends_no_process(own: Stage) -> None:
    """Its database is lost: the hosts wait, and `lectern init` on each is all that is to be done."""
    booking = own.booking(own.town.record(seconds=170), starts_in_s=12, length_s=170)
    class_id = own.book(booking)
    assert own.answer(class_id, timeout_s=60)["result"] == "success"
    own.on_air(class_id, timeout_s=60)
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
    tag = [f"class:{answered}"]  # although it was handled before the new deployments were there
    wait_until(lambda: own.runs("teacher", "booking", tags=tag), description="the UI finds it by its class")
    (push,) = own.pushes(class_id)
    assert push.ended_at is None
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
    wait_until(lambda: own.runs("teacher", "booking", tags=[f"class:{class_id}"]), description="it is shown")
    after = own.town.api.get(path).raise_for_status().json()
    assert (after["id"], after["version"]) == (before["id"], before["version"]), "what names it stays valid"
    assert after["parameter_openapi_schema"]["properties"] == before["parameter_openapi_schema"]["properties"]
