"""What a run asks of the Prefect server before its flow begins."""

import asyncio
import subprocess
import sys

import httpx
import pytest
from prefect import flow, runtime
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow_async
from prefect.states import Pending, Running

from flows.resident import prefect_client
from tests.stage import Town

pytestmark = pytest.mark.timeout(300)  # the first test of a session starts the servers


@flow(name="nothing", persist_result=False)
async def nothing() -> None:
    """Say in which run it is."""
    print(f"run {runtime.flow_run.name}, begun {runtime.flow_run.run_count} times")  # noqa: T201 (heard by the test)


async def _play() -> None:
    async with prefect_client.connected() as client:

        async def say(request: httpx.Request) -> None:
            print(request.method, request.url.path.removeprefix("/api"))  # noqa: T201 (heard by the test)

        async def go(run: FlowRun) -> None:
            await run_flow_async(nothing, flow_run=run)
            print("--", (await client.read_flow_run(run.id)).state_name)  # noqa: T201 (heard by the test)

        client._client.event_hooks["request"].append(say)
        new = await client.create_flow_run(nothing, name="new", state=Running())
        client.know(new)
        await go(new)
        other = await client.create_flow_run(nothing, name="other", state=Pending())
        await go(other)
        await client.set_flow_run_state(other.id, Pending(), force=True)
        client.know(other)
        client.forget(other.id)
        await go(await client.read_flow_run(other.id))


def test_a_new_run_asks_for_nothing_that_its_process_knows(town: Town) -> None:
    """It is put to Running and to its end; one that this process did not make is asked about."""
    environment = {**town.environment, "PREFECT_API_URL": f"{town.api.base_url}".rstrip("/")}
    done = subprocess.run(
        [sys.executable, "-m", __name__], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    new, other, again = (part.split("\n") for part in done.stdout.split("-- Completed\n")[:3])
    new = new[new.index("POST /flow_runs/") :]
    assert new[1] == "run new, begun 1 times"
    assert [line.split("/")[-1] for line in new[2:3]] == ["set_state"], "its end is told"
    for lines, times in ((other, 1), (again, 2)):
        before = lines[: lines.index(f"run other, begun {times} times")]
        assert [line.split()[0] for line in before[-3:]] == ["PATCH", "POST", "GET"], before


@pytest.mark.asyncio
async def test_who_is_in_a_hurry_goes_first_and_who_is_gone_holds_nobody_up() -> None:
    """One at a time, in their order but for that; one that is cancelled when it is its turn passes it on."""
    turns, went, go = prefect_client.Turns(), list[str](), asyncio.Event()

    async def work(name: str, *, urgent: bool) -> None:
        async with turns.one(urgent=urgent):
            await go.wait()
            went.append(name)
        if name == "first":
            tasks["gone"].cancel()  # it is its turn, and it has not begun

    names = ("first", "slow 1", "slow 2", "gone", "quick 1", "quick 2")
    tasks = {name: asyncio.create_task(work(name, urgent="quick" in name or name == "gone")) for name in names}
    await asyncio.sleep(0)  # all of them have come
    go.set()
    await asyncio.wait(tasks.values())
    assert tasks["gone"].cancelled()
    assert went == ["first", "quick 1", "quick 2", "slow 1", "slow 2"]
    await asyncio.wait_for(work("later", urgent=False), 5)


if __name__ == "__main__":
    asyncio.run(_play())
