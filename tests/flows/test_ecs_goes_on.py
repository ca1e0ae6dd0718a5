"""A teacher goes, or a person ends a job, at each step: one result, or a refusal, and nothing is left.

There are two ECS hosts on this machine, and jobs stand still at a step there: so something can befall them, however
quick or busy the machine is.
"""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.stage import STAGES, Stage, Town, running_with, wait_until
from town.faults import Fault
from town.oss_transcoder import Behaviour, Rule
from town.sshd import SshServer

pytestmark = pytest.mark.live


class Server(SshServer):
    """An ECS host: a home of its own."""

    def __init__(self, folder: Path, *admits: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        super().__init__(folder, environment={"HOME": str(self.home)}, admits=admits)

    def jobs(self) -> list[str]:
        root = self.home / "work"
        return [one.name for one in root.iterdir()] if root.is_dir() else []

    def processes(self, *words: str, name: str = "") -> list[int]:
        """What runs there for jobs, called *name*, with *words* in its command line."""
        return running_with(str(self.home / "work"), *words, name=name)


class Ecs(Stage):
    """A stage with two ECS hosts; the OSS fails at once, and ffmpeg takes its time."""

    servers: list[Server]

    def results(self, record: int) -> list[str]:
        """What our own servers published of a record, and was heard; the stream is trimmed of what all have read."""
        heard = self.rows("teacher", "select body from inbox_list where command = 'transcoding' order by id")
        said = [json.loads(one["body"]) for one in heard]
        return [one["result"] for one in said if (one["record_id"], one["type"]) == (record, "ecs")]

    def clean(self) -> None:
        """Wait until nothing is left on the hosts."""
        for server in self.servers:
            wait_until(
                lambda s: not s.jobs() and not s.processes(),
                server,
                description=f"nothing is left on {server.url}: {server.jobs()}, {server.processes()}",
            )


@pytest.fixture(scope="module")
def ecs_of_module(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ecs]:
    folder = tmp_path_factory.mktemp("ecs")
    first = Server(folder / "a")
    servers = [first, Server(folder / "b", first.client_key)]  # both let the same key in, and each has its own home
    for server in servers:
        town.background.run(server.start())
    (folder / "known_hosts").write_text("".join(server.known_hosts.read_text() for server in servers))
    slow = folder / "ffmpeg"
    slow.write_text('#!/bin/sh\ncase "$*" in *-force_key*) set -- -readrate 4 "$@";; esac\nexec ffmpeg "$@"\n')
    slow.chmod(0o755)
    settings = {
        "ECS_HOSTS": ",".join(server.url for server in servers),
        "ECS_SSH_KEY": str(first.client_key),
        "ECS_KNOWN_HOSTS": str(folder / "known_hosts"),
        "ECS_WORK_ROOT": "~/work",
        "ECS_FFMPEG": str(slow),
        "MAX_ECS_JOBS": "3",
        "ECS_COOLDOWN_S": "5",
        "HTTP_TIMEOUT_S": "30",  # who encodes on this machine leaves little for who asks
    }
    found = Ecs(town, folder, settings)
    found.servers = servers
    STAGES.append(found)
    try:
        found.oss.behave(Rule(Behaviour.FAIL))
        found.up("teacher", "streamer1")
        yield found
    finally:
        STAGES.remove(found)
        found.close()
    for server in servers:
        town.background.run(server.stop())


@pytest.fixture
def ecs(ecs_of_module: Ecs) -> Iterator[Ecs]:
    """After each claim nothing is left."""
    yield ecs_of_module
    ecs_of_module.town.origin.faults.clear()
    ecs_of_module.up("teacher")
    ecs_of_module.clean()


STEPS = {"fetch": ("wget", "--input-file"), "encode": ("ffmpeg", "-force_key"), "upload": ("curl", "--upload-file")}
"""By its step, what a program of a job is called, and how it is known."""


class Held:
    """A job that stands still at *step*: half of its source is there, or of its picture, or its upload has no answer.

    wget and curl bear it for half a minute.
    """

    def __init__(self, ecs: Ecs, step: str) -> None:
        self.step = step
        short = {"seconds": 8} if step == "upload" else {}  # it is encoded before
        self.record = ecs.town.record(**short)
        self.program = 0
        self._ecs = ecs
        path, method = (f"put/{self.record}/*", "PUT") if step == "upload" else (f"{self.record}/*", "GET")
        self._fault = Fault(path, method=method, times=1, held=step != "encode")
        ecs.town.origin.faults.add(self._fault)
        self.class_id = ecs.book(ecs.booking(self.record, "240P"))

    def reached(self) -> "Held":
        """Wait until its program is at work, and the teacher has noted where."""
        name, marker = STEPS[self.step]

        def found() -> int:
            by_host = (one.processes(marker, f"/{self.record}_", name=name) for one in self._ecs.servers)
            return next((pid for pids in by_host for pid in pids), 0)

        self.program = wait_until(found, description=f"{self.record} is at {self.step}")
        if self.step == "encode":
            os.kill(self.program, signal.SIGSTOP)
        else:
            wait_until(lambda: self._fault.times == 0, description=f"the origin holds the {self.step} of {self.record}")
        known = "select 1 from video_list where record_id = ? and resolution = '240P' and ecs_job is not null"
        wait_until(lambda: self._ecs.rows("teacher", known, self.record), description="it is known where")
        return self

    @property
    def lives(self) -> bool:
        """Whether its program is still there."""
        return psutil.pid_exists(self.program) and psutil.Process(self.program).status() != psutil.STATUS_ZOMBIE

    def go_on(self) -> None:
        self._fault.held = False
        with suppress(ProcessLookupError):
            os.kill(self.program, signal.SIGCONT)


def test_a_run_that_is_cancelled_in_the_ui_ends_its_job_there(ecs: Ecs) -> None:
    """Its classes are refused; a Retry makes it after all."""
    held = Held(ecs, "encode").reached()
    record, encoder = held.record, held.program
    (run, *_) = ecs.runs("teacher", f"transcode {record}")
    ecs.click(run["id"], "CANCELLING", "Cancelling")
    answer = ecs.answer(held.class_id, timeout_s=60)
    assert (answer["result"], answer["code"]) == ("fail", 208)
    assert "cancelled in the UI" in answer["message"]
    wait_until(lambda: not psutil.pid_exists(encoder), description="its ffmpeg is gone")
    ecs.clean()
    wait_until(lambda: ecs.run(run["id"])["state"]["type"] == "CANCELLED", description="the run is cancelled")
    ecs.click(run["id"], "SCHEDULED", "AwaitingRetry")
    wait_until(lambda: ecs.status(record, "240P") == "success", timeout_s=90, description="the retry makes it")


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_teacher_that_goes_leaves_its_jobs_to_the_next_one(ecs: Ecs, how: str) -> None:
    """The same programs go on. Stopped, as in a rollout, it drains, and does not wait for their end.

    Nothing was fetched, made or uploaded twice: one place on a host, one answer, one upload, one result.
    """
    jobs = [Held(ecs, "upload").reached()]  # it has the longest way
    jobs += [one.reached() for one in [Held(ecs, "encode"), Held(ecs, "fetch")]]
    teacher = ecs.residents["teacher"]
    try:
        if how == "killed":
            teacher.kill()
        else:
            assert teacher.end() == 0
        assert all(job.lives for job in jobs), "they go on without us"
    finally:
        for job in jobs:
            job.go_on()
    ecs.up("teacher")
    begun = "select detail from event_list where stem = ? and what = 'ECS transcoding begins'"
    for job in jobs:
        assert ecs.answer(job.class_id, timeout_s=120)["result"] == "success"
        assert len(ecs.rows("teacher", begun, f"{job.record}_240P")) == 1
        assert ecs.town.asked(f"put/{job.record}/{job.record}_240P.flv", "PUT") == 1
        assert ecs.results(job.record) == ["sucess"]
        assert len(ecs.ear.answers[job.class_id]) == 1
        assert ecs.town.asked(f"{job.record}/{job.record}.flv") == 1
