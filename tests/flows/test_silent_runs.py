"""A run whose process died is not *Running* for ever."""

from pathlib import Path

import pytest
from prefect.server.events.schemas.automations import EventTrigger
from prefect.server.events.schemas.events import ReceivedEvent

from flows.resident.prefect import deployments
from tests.stage import Stage, Town, staged, wait_until

pytestmark = pytest.mark.night
RUN = "prefect.resource.name"


def state_of(stage: Stage, class_id: str) -> str:
    """The state's name of the class's broadcast; nothing while Prefect has none yet: the class is aired without it."""
    (run, *_) = [*stage.runs("streamer1", f"broadcast {class_id}"), {"state_name": ""}]
    return str(run["state_name"])


def test_a_run_that_falls_silent_is_marked_and_taken_up_again(town: Town, tmp_path: Path) -> None:
    """The server sees it within three heartbeats, says so, and the next process of the host goes on with it."""
    with staged(town, tmp_path, RUN_HEARTBEAT_S="1") as stage:
        stage.up("streamer1")
        booking = stage.booking(stage.town.record(seconds=170), starts_in_s=5, length_s=165)
        class_id = booking["class_id"]
        stage.tell("streamer1", {**booking, "cmd": "prepare"})
        stage.on_air(class_id)
        wait_until(lambda: state_of(stage, class_id) == "Running", description="its run is at work")

        def alive() -> bool:
            asked = {"filter": {"event": {"name": ["lectern.run.alive"]}}, "limit": 1}
            return bool(town.api.post("/events/filter", json=asked).raise_for_status().json()["events"])

        wait_until(alive, description="its process says that it is alive")
        stage.residents["streamer1"].kill()
        wait_until(lambda: state_of(stage, class_id) == "Silent", description="its silence is seen")
        stage.up("streamer1")
        wait_until(lambda: state_of(stage, class_id) == "Running", description="its run is at work again")
        stage.on_air(class_id)


def test_only_runs_of_a_process_are_watched(town: Town, tmp_path: Path) -> None:
    """A run that shows what was done costs the server no watch, by its own rule; one that was at work does."""
    with staged(town, tmp_path) as stage:
        stage.up("teacher", "streamer1")
        record = stage.town.record()
        class_id = stage.book(stage.booking(record, starts_in_s=90_000))
        assert stage.answer(class_id, timeout_s=120)["result"] == "success"
        trigger = EventTrigger.model_validate(deployments.silent_runs(30).trigger.model_dump(exclude={"type"}))

        def end(name: str) -> list[ReceivedEvent]:
            wanted = {"event": {"name": ["prefect.flow-run.Completed"]}, "resource": {"labels": {RUN: [name]}}}
            events = town.api.post("/events/filter", json={"filter": wanted}).raise_for_status().json()["events"]
            return [ReceivedEvent.model_validate(one) for one in events]

        booking, download = f"booking {class_id}", f"download {record}"
        for name in (booking, download):
            wait_until(lambda n: end(n) != [], name, description=f"the end of {name} is seen")
        assert [trigger.covers(one) for one in (*end(booking), *end(download))] == [False, True]
