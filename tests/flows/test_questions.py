"""What a host asks Prefect about runs."""

import asyncio
from uuid import uuid4

import pytest
import stamina
from httpx import HTTPStatusError
from prefect.client.orchestration import PrefectClient

from flows.host import NOT_MOVED
from flows.resident.prefect import queries
from tests.stage import Town

pytestmark = pytest.mark.live


def test_the_run_that_took_the_classes_is_found_behind_those_that_took_none(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A streamer that is lost for moments leaves one of these each time: more than Prefect gives at once."""
    monkeypatch.setattr(queries, "PAGE", 2)
    tag = f"lost-{uuid4()}"
    flow_id = town.api.post("/flows/", json={"name": "move"}).raise_for_status().json()["id"]

    @stamina.retry(on=HTTPStatusError, attempts=30, wait_initial=0.05, wait_max=0.5)  # two writers met in its SQLite
    def end(name: str) -> None:
        state = {"type": "COMPLETED", "name": name}
        town.api.post("/flow_runs/", json={"flow_id": flow_id, "tags": [tag], "state": state}).raise_for_status()

    async def is_found() -> bool:
        async with PrefectClient(str(town.api.base_url)) as client:
            return await queries.is_tagged(client, tag, but=NOT_MOVED)

    end(NOT_MOVED)
    assert not asyncio.run(is_found())
    end("Completed")
    for _ in range(queries.PAGE + 1):
        end(NOT_MOVED)
    assert asyncio.run(is_found())
