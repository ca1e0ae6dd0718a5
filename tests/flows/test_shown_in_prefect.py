"""What a real Prefect server makes of what hosts send and ask: an update of Prefect that changes it fails here."""

import asyncio
import inspect
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import stamina
from httpx import HTTPStatusError
from prefect.client.orchestration import PrefectClient

from flows.host import NOT_MOVED
from flows.resident.prefect import runs
from flows.resident.prefect.deployments import PARAMETERS, STREAMER, TEACHER, UNUSED
from lectern.run_records import TAGS
from tests.stage import Stage, Town, wait_until

pytestmark = pytest.mark.live


def test_a_refused_booking_stands_out_and_says_why(stage: Stage) -> None:
    """With its code and its true times; a Retry of it changes nothing."""
    class_id = stage.book(stage.booking(stage.town.record(), starts_in_s=-60, length_s=1))
    assert stage.answer(class_id)["code"] == 410
    tags = [f"class:{class_id}", "lectern:refused"]
    (run,) = wait_until(lambda: stage.runs("teacher", "booking", tags=tags), description="the UI finds it by its class")
    assert run["name"] == f"booking {class_id}"
    assert (run["state_name"], run["state_type"]) == ("Refused", "CANCELLED")
    message = run["state"]["message"]
    assert re.search(r"refuse 410: .*; handled \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} to ", message), message
    began, ended = (datetime.fromisoformat(run["labels"][f"lectern.{one}"]) for one in ("began", "ended"))
    assert began <= ended <= datetime.fromisoformat(run["start_time"])
    stage.click(run["id"], "SCHEDULED", "AwaitingRetry")
    wait_until(lambda: stage.run(run["id"])["run_count"] == 1, description="it ran again")
    assert len(stage.ear.answers[class_id]) == 1


def test_the_servers_limit_of_tags_is_above_ours(stage: Stage, town: Town) -> None:
    """It refuses a run whose event would have more than a hundred resources."""
    booking = town.api.get(f"/deployments/name/booking/{stage.name('teacher')}").raise_for_status().json()
    path = f"/deployments/{booking['id']}/create_flow_run/bulk"

    def create(tags: int) -> str:
        run = {"name": "tags", "tags": [f"t{n}" for n in range(tags)], "state": {"type": "COMPLETED"}}
        asked = [{**run, "parameters": {"inbox_ids": ""}}]
        found = town.api.post(path, json=asked).raise_for_status().json()["results"][0]
        return str(found["status"] if "locked" not in str(found["error"]) else create(tags))

    assert create(TAGS + 2) == "CREATED"
    assert create(130) == "FAILED", "Prefect takes more tags now: pages may be larger"


def test_each_parameter_of_a_quick_run_is_explained() -> None:
    flows = [*TEACHER.values(), *STREAMER.values()]
    assert {name for flow in flows for name in inspect.signature(flow.fn).parameters} == PARAMETERS.keys()


def test_the_queue_that_nobody_polls_is_paused(stage: Stage) -> None:
    """Else it is a red dot on the dashboard for ever, for which each new operator looks."""
    queues = stage.town.api.post("/work_pools/resident/queues/filter", json={}).json()
    assert [one["status"] for one in queues if one["name"] == UNUSED] == ["PAUSED"]


def test_a_run_is_due_from_its_time_on_until_it_begins(town: Town) -> None:
    """In its own queue of its own pool; a host asks each second, and as a worker only if one is."""
    pool = f"pool-{uuid4()}"

    @stamina.retry(on=HTTPStatusError, attempts=30, wait_initial=0.05, wait_max=0.5)  # two writers met in its SQLite
    def said(path: str, **body: object) -> Any:
        return town.api.post(path, json=body).raise_for_status().json()

    def made(path: str, **body: object) -> str:
        return str(said(path, **body)["id"])

    def due() -> list[str]:
        async def asked() -> list[str]:
            async with PrefectClient(str(town.api.base_url)) as client:
                queues = [("resident", "a"), (pool, "a"), (pool, "b")]
                return [" ".join(one) for one in queues if await runs.is_due(client, *one)]

        return asyncio.run(asked())

    made("/work_pools/", name=pool, type="process")
    for name in "ab":
        made(f"/work_pools/{pool}/queues", name=name)
    flow_id = made("/flows/", name=pool)
    deployment = made("/deployments/", name=pool, flow_id=flow_id, work_pool_name=pool, work_queue_name="a")

    def scheduled(in_s: float, name: str) -> str:
        at = (datetime.now(UTC) + timedelta(seconds=in_s)).isoformat()
        state = {"type": "SCHEDULED", "name": name, "state_details": {"scheduled_time": at}}
        return made(f"/deployments/{deployment}/create_flow_run", state=state)

    scheduled(3600, "Scheduled")
    assert due() == []
    for name in ("Scheduled", "AwaitingRetry"):
        run_id = scheduled(-1, name)
        assert due() == [f"{pool} a"]
        said(f"/flow_runs/{run_id}/set_state", state={"type": "PENDING"})
        assert due() == []


def test_the_run_that_took_the_classes_is_found(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """A streamer that is lost for moments leaves one of these each time: more than Prefect gives at once."""
    monkeypatch.setattr(runs, "PAGE", 2)
    tag = f"lost-{uuid4()}"
    flow_id = town.api.post("/flows/", json={"name": "move"}).raise_for_status().json()["id"]

    @stamina.retry(on=HTTPStatusError, attempts=30, wait_initial=0.05, wait_max=0.5)  # two writers met in its SQLite
    def end(name: str) -> None:
        state = {"type": "COMPLETED", "name": name}
        town.api.post("/flow_runs/", json={"flow_id": flow_id, "tags": [tag], "state": state}).raise_for_status()

    async def is_found() -> bool:
        async with PrefectClient(str(town.api.base_url)) as client:
            return await runs.is_tagged(client, tag, but=NOT_MOVED)

    end(NOT_MOVED)
    assert not asyncio.run(is_found())
    end("Completed")
    for _ in range(runs.PAGE + 1):
        end(NOT_MOVED)
    assert asyncio.run(is_found())
