"""Everything is killed that can be killed: one result, or a refusal, and nothing is left."""

import os
import signal
import time

import psutil
import pytest

from lectern.demo.origin import Fault
from tests.flows.ecs.servers import Ecs, made_once
from tests.stage import wait_until

pytestmark = pytest.mark.timeout(600)  # the first test of a session starts the servers


@pytest.mark.parametrize("step", ["fetch", "encode", "upload"])
def test_a_teacher_that_is_killed_finds_its_job_again(ecs: Ecs, step: str) -> None:
    """The same programs go on; nothing is fetched, made or uploaded twice."""
    record = ecs.town.record()
    if step == "fetch":
        ecs.town.origin.faults.add(Fault(f"{record}/*", method="GET", rate_bytes_s=100_000))
    if step == "upload":
        ecs.town.origin.faults.add(Fault(f"put/{record}/*", method="PUT", delay_s=12))
    class_id = ecs.book(ecs.booking(record, "240P"))
    marker = {"fetch": "--input-file", "encode": "-force_key_frames", "upload": "--upload-file"}[step]
    at_it = wait_until(lambda: ecs.a.processes(marker), timeout_s=60, description=f"it is at {step}")
    wait_until(lambda: ecs.row(record)["ecs_job"], description="it is known where")
    ecs.residents["teacher"].kill()
    assert set(at_it) & set(ecs.a.processes(marker)), "it goes on without us"
    ecs.up("teacher")
    made_once(ecs, record, class_id)
    assert ecs.town.asked(f"{record}/{record}.flv") == 1


def test_a_teacher_that_is_stopped_leaves_its_job_to_the_next_one(ecs: Ecs) -> None:
    """As in a rollout: it drains, and does not wait for the end."""
    record = ecs.town.record()
    class_id = ecs.book(ecs.booking(record, "240P"))
    encoder = ecs.encoding()
    assert ecs.residents["teacher"].end() == 0
    assert psutil.pid_exists(encoder)
    ecs.up("teacher")
    made_once(ecs, record, class_id)


def test_a_connection_that_breaks_is_made_again(ecs: Ecs) -> None:
    """The job goes on there meanwhile."""
    record = ecs.town.record()
    class_id = ecs.book(ecs.booking(record, "240P"))
    encoder = ecs.encoding()
    ecs.town.background.run(ecs.a.gate.stop())
    time.sleep(1)
    assert ecs.encoders() == [encoder]
    ecs.town.background.run(ecs.a.gate.start())
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


@pytest.mark.parametrize("whom", ["ffmpeg", "sshd"])
def test_what_is_killed_on_the_host_is_begun_again_or_gone_on_with(ecs: Ecs, whom: str) -> None:
    record = ecs.town.record()
    class_id = ecs.book(ecs.booking(record, "240P"))
    encoder = ecs.encoding()
    if whom == "ffmpeg":
        os.kill(encoder, signal.SIGKILL)
    else:
        ecs.town.background.run(ecs.a.stop())
        assert ecs.encoders() == [encoder]
        ecs.town.background.run(ecs.a.start())
    made_once(ecs, record, class_id)


def test_an_upload_that_is_killed_is_made_again(ecs: Ecs) -> None:
    record = ecs.town.record()
    ecs.town.origin.faults.add(Fault(f"put/{record}/*", method="PUT", times=1, delay_s=8))
    class_id = ecs.book(ecs.booking(record, "240P"))
    (uploader, *_) = wait_until(lambda: ecs.a.processes("--upload-file"), timeout_s=60, description="it uploads")
    for pid in ecs.a.processes("--upload-file"):
        if psutil.Process(pid).name() == "curl":
            os.kill(pid, signal.SIGKILL)
    assert uploader
    assert ecs.answer(class_id, timeout_s=120)["result"] == "success"
    assert [one["result"] for one in ecs.results(record)] == ["sucess"]
