"""Everything is killed that can be killed, at each step: one result, or a refusal, and nothing is left."""

from collections.abc import Iterator

import pytest

from tests.flows.ecs.held import Held, at_each_step
from tests.flows.ecs.servers import Ecs, made_once
from tests.stage import running_with, wait_until

pytestmark = pytest.mark.live
SETTINGS = {"MAX_ECS_JOBS": "3"}


@pytest.fixture
def jobs(ecs: Ecs) -> Iterator[list[Held]]:
    """One at each step."""
    found = at_each_step(ecs)
    yield found
    for job in found:
        job.go_on()


def made_at_once(ecs: Ecs, jobs: list[Held]) -> None:
    """Nothing was fetched, made or uploaded twice."""
    for job in jobs:
        made_once(ecs, job.record, job.class_id)
        assert ecs.town.asked(f"{job.record}/{job.record}.flv") == 1


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_teacher_that_goes_leaves_its_jobs_to_the_next_one(ecs: Ecs, jobs: list[Held], how: str) -> None:
    """The same programs go on. Stopped, as in a rollout, it drains, and does not wait for their end."""
    teacher = ecs.residents["teacher"]
    if how == "killed":
        teacher.kill()
    else:
        assert teacher.end() == 0
    assert all(job.lives for job in jobs), "they go on without us"
    for job in jobs:
        job.go_on()
    ecs.up("teacher")
    made_at_once(ecs, jobs)


@pytest.mark.parametrize("what", ["connection", "sshd"])
def test_a_way_that_breaks_is_made_again(ecs: Ecs, jobs: list[Held], what: str) -> None:
    """The jobs go on there meanwhile."""
    ways = [server.gate if what == "connection" else server for server in (ecs.a, ecs.b)]
    for way in ways:
        ecs.town.background.run(way.stop())
    assert all(job.lives for job in jobs), "they go on without us"
    for job in jobs:
        job.go_on()
    for way in ways:
        ecs.town.background.run(way.start())
    made_at_once(ecs, jobs)


def test_a_way_that_breaks_when_all_is_made_is_made_again_to_leave_nothing(ecs: Ecs) -> None:
    """The answer is out; nobody but this run would look there again soon."""
    job = Held(ecs, "upload").reached()
    server = ecs.a if ecs.a.jobs() else ecs.b
    server.slow.touch()
    try:
        job.go_on()
        made_once(ecs, job.record, job.class_id)
        wait_until(lambda: running_with(f"{server.home}/bin/setsid"), description="the host is asked to leave nothing")
        ecs.town.background.run(server.gate.stop())
    finally:
        server.slow.unlink()
    ecs.town.background.run(server.gate.start())
    ecs.clean()


def test_a_host_that_is_gone_moves_its_job_to_another(ecs: Ecs) -> None:
    """When it comes back, what it was at is ended there."""
    record = ecs.town.record()
    class_id = ecs.book(ecs.booking(record, "240P"))
    ecs.encoding()
    gone, other = (ecs.a, ecs.b) if ecs.a.jobs() else (ecs.b, ecs.a)
    ecs.town.background.run(gone.gate.stop())
    wait_until(other.jobs, timeout_s=90, description="the other host has it")
    ecs.town.background.run(gone.gate.start())
    assert ecs.made(class_id)
    assert [one["result"] for one in ecs.results(record)] == ["sucess"]
