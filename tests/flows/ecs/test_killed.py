"""Everything is killed that can be killed: one result, or a refusal, and nothing is left."""

import os
import signal

import psutil
import pytest

from lectern.demo.origin import Fault
from tests.flows.ecs.servers import Ecs, made_once
from tests.stage import wait_until

pytestmark = pytest.mark.timeout(600)  # the first test of a session starts the servers


STEPS = {
    "fetch": ("--input-file", "wget"),
    "encode": ("-force_key_frames", "ffmpeg"),
    "upload": ("--upload-file", "curl"),
}
"""By its step, how a program of a job is known, and what it is called."""


def slow_at(ecs: Ecs, record: int, step: str) -> None:
    """The job takes its time at *step*; at the encoding it does so by itself."""
    if step == "fetch":
        ecs.town.origin.faults.add(Fault(f"{record}/*", method="GET", rate_bytes_s=100_000))
    if step == "upload":
        ecs.town.origin.faults.add(Fault(f"put/{record}/*", method="PUT", times=1, delay_s=12))


def at_work(ecs: Ecs, record: int, step: str) -> list[int]:
    """Wait until the program of *step* is at work on the first host, and the teacher has noted where; its processes."""
    marker, name = STEPS[step]

    def found() -> list[int]:
        pids = [pid for pid in ecs.a.processes(marker) if psutil.pid_exists(pid)]
        return pids if any(psutil.Process(pid).name() == name for pid in pids) else []

    pids = wait_until(found, timeout_s=60, description=f"it is at {step}")
    wait_until(lambda: ecs.row(record)["ecs_job"], description="it is known where")
    return pids


@pytest.mark.parametrize("step", STEPS)
def test_a_teacher_that_is_killed_finds_its_job_again(ecs: Ecs, step: str) -> None:
    """The same programs go on; nothing is fetched, made or uploaded twice."""
    record = ecs.town.record()
    slow_at(ecs, record, step)
    class_id = ecs.book(ecs.booking(record, "240P"))
    at_it = at_work(ecs, record, step)
    ecs.residents["teacher"].kill()
    assert set(at_it) & set(ecs.a.processes(STEPS[step][0])), "it goes on without us"
    ecs.up("teacher")
    made_once(ecs, record, class_id)
    assert ecs.town.asked(f"{record}/{record}.flv") == 1


def test_a_teacher_that_is_killed_while_its_job_waits_for_a_host_makes_it_later(ecs: Ecs) -> None:
    busy = [ecs.book(ecs.booking(ecs.town.record(), "240P")) for _ in range(2)]
    encoders = wait_until(
        lambda: found if len(found := ecs.encoders()) == 2 else [], timeout_s=60, description="both hosts are at work"
    )
    for pid in encoders:
        os.kill(pid, signal.SIGSTOP)
    record = ecs.town.record()
    class_id = ecs.book(ecs.booking(record, "240P"))
    wait_until(lambda: ecs.row(record).get("owner"), timeout_s=30, description="it waits in line")
    ecs.residents["teacher"].kill()
    assert ecs.row(record)["begun_at"] is None
    for pid in encoders:
        os.kill(pid, signal.SIGCONT)
    ecs.up("teacher")
    made_once(ecs, record, class_id)
    assert [ecs.answer(one, timeout_s=120)["result"] for one in busy] == ["success", "success"]


def test_a_teacher_that_is_stopped_leaves_its_job_to_the_next_one(ecs: Ecs) -> None:
    """As in a rollout: it drains, and does not wait for the end."""
    record = ecs.town.record()
    class_id = ecs.book(ecs.booking(record, "240P"))
    encoder = ecs.encoding()
    os.kill(encoder, signal.SIGSTOP)  # else it could be done before the teacher is down
    assert ecs.residents["teacher"].end() == 0
    assert psutil.pid_exists(encoder)
    os.kill(encoder, signal.SIGCONT)
    ecs.up("teacher")
    made_once(ecs, record, class_id)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("what", ["connection", "sshd"])
def test_a_way_that_breaks_is_made_again(ecs: Ecs, what: str, step: str) -> None:
    """The job goes on there meanwhile."""
    record = ecs.town.record()
    slow_at(ecs, record, step)
    class_id = ecs.book(ecs.booking(record, "240P"))
    at_it = at_work(ecs, record, step)
    way = ecs.a.gate if what == "connection" else ecs.a
    ecs.town.background.run(way.stop())
    assert set(at_it) & set(ecs.a.processes(STEPS[step][0])), "it goes on without us"
    ecs.town.background.run(way.start())
    made_once(ecs, record, class_id)
    assert ecs.town.asked(f"{record}/{record}.flv") == 1


def test_a_host_that_is_gone_moves_its_job_to_another(ecs: Ecs) -> None:
    """When it comes back, what it was at is ended there."""
    record = ecs.town.record()
    class_id = ecs.book(ecs.booking(record, "240P"))
    ecs.encoding()
    ecs.town.background.run(ecs.a.gate.stop())
    wait_until(ecs.b.jobs, timeout_s=90, description="the other host has it")
    ecs.town.background.run(ecs.a.gate.start())
    assert ecs.answer(class_id, timeout_s=120)["result"] == "success"
    assert [one["result"] for one in ecs.results(record)] == ["sucess"]
    ecs.clean()


@pytest.mark.parametrize("step", STEPS)
def test_a_program_that_is_killed_there_is_begun_again(ecs: Ecs, step: str) -> None:
    """What was got of the source is gone on with, what was encoded is not; an upload is made as a whole."""
    record = ecs.town.record()
    slow_at(ecs, record, step)
    class_id = ecs.book(ecs.booking(record, "240P"))
    for pid in at_work(ecs, record, step):
        if psutil.pid_exists(pid) and psutil.Process(pid).name() == STEPS[step][1]:
            os.kill(pid, signal.SIGKILL)
    assert ecs.answer(class_id, timeout_s=120)["result"] == "success"
    assert [one["result"] for one in ecs.results(record)] == ["sucess"]
    assert ecs.puts(record) == (2 if step == "upload" else 1)
    assert len(ecs.ear.answers[class_id]) == 1
    ecs.clean()
