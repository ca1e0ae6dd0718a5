"""Prefect is the cockpit, not the truth: hosts begin, answer and air without it."""

from collections.abc import Iterator

import pytest

from tests.stage import Gate, Stage, Town, staged, wait_until

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def walled(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Gate]]:
    """A teacher and a streamer that reach Prefect through a gate."""
    gate = Gate(town.prefect_port)
    town.background.run(gate.start())
    url = f"http://127.0.0.1:{gate.port}/api"
    with staged(town, tmp_path_factory.mktemp("walled"), PREFECT_API_URL=url) as found:
        found.up("teacher", "streamer1")
        yield found, gate
    town.background.run(gate.stop())


def test_hosts_begin_and_air_although_prefect_is_away(walled: tuple[Stage, Gate]) -> None:
    """As after a power cut: a class that begins soon is aired, a booking is answered, downloaded, and shown later."""
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
        assert "its work is done without" in stage.residents["streamer1"].said()
        for who in ("teacher", "streamer1"):
            assert "prefect: away" in stage.residents[who].said()
            assert "Traceback" not in stage.residents[who].said()
    finally:
        stage.town.background.run(gate.start())
    wait_until(lambda: stage.order(aired["class_id"])["state"] == "aired", description="the teacher knows")
    wait_until(lambda: stage.runs("teacher", "booking", tags=[f"class:{booked}"]), description="it is shown")
    assert len(stage.ear.answers[booked]) == 1
