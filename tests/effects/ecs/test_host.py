"""What a job does on a host that lacks a program, has no room, stands still, or is too slow."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lectern.decide import ecs as decide
from lectern.effects.ecs import source, ssh
from lectern.effects.ecs.job import Job, Programs, Report
from lectern.errors import NO_ECS_ROOM, TRANSCODE_TIMED_OUT, CallAPerson, FallBack, Refuse, TryAgain
from lectern.states import Resolution
from tests.effects.ecs.at_work import encoders, stand_in, transcode
from tests.waiting import async_wait_until

pytestmark = pytest.mark.live


@pytest.mark.parametrize(
    ("program", "package", "step"),
    [
        ("wget", "wget", "fetch"),
        ("ffprobe", "ffmpeg", "look"),
        ("curl", "curl", "look"),
        ("ffmpeg", "ffmpeg", "encode"),
    ],
)
async def test_a_missing_program_calls_a_person(
    connection: ssh.Connection, job: Job, program: str, package: str, step: str
) -> None:
    """What only the upload needs is missed before anything is encoded."""
    report = Report()
    with pytest.raises(
        CallAPerson, match=rf"ssh://.*no-{program} cannot be run; type there: apt-get install {package}$"
    ):
        await transcode(connection, replace(job, programs=Programs(**{program: f"no-{program}"})), report)
    assert report.step == step


@pytest.mark.parametrize(("program", "exit_code"), [("wget", 3), ("ffmpeg", 1)])
async def test_a_disk_that_fills_is_fallen_back_from(
    connection: ssh.Connection, job: Job, tmp_path: Path, program: str, exit_code: int
) -> None:
    """A stand-in says what the program says then; where mounts are ours to make, the next claim fills a real one."""
    says = f"echo 'source: No space left on device' >&2; exit {exit_code}"
    full = stand_in(tmp_path / program, f'case "$*" in *-force_key*|*--input-file*) {says};; esac\nexec {program} "$@"')
    with pytest.raises(FallBack, match="No space left") as raised:
        await transcode(connection, replace(job, programs=Programs(**{program: full})))
    assert raised.value.code is NO_ECS_ROOM


@pytest.fixture
def small_disk(recording: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk with room for half of the source, or for the source and not much more."""
    size = recording.stat().st_size
    room = size // 2 if request.param == "source" else size + 150_000
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("small_disk", ["source", "rendition"], indirect=True)
async def test_a_real_disk_that_fills_is_fallen_back_from(
    connection: ssh.Connection, job: Job, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although nothing can be noted there any more, not even how the program ended."""
    monkeypatch.setattr(source, "_RESERVE_BYTES", -(10**9))  # as if others had filled it since it was looked at
    with pytest.raises(FallBack, match="its disk is full") as raised:
        await transcode(connection, replace(job, wanted=(Resolution.P1080,), work_root=str(small_disk / "work")))
    assert raised.value.code is NO_ECS_ROOM


async def test_an_encoder_that_stands_still_is_noticed(connection: ssh.Connection, job: Job, tmp_path: Path) -> None:
    """Although it goes on reporting."""
    says = "while :; do printf 'out_time_us=1000000\\nprogress=continue\\n'; sleep 0.2; done"
    stuck = stand_in(tmp_path / "ffmpeg", f'case "$*" in *-force_key*) {says};; esac\nexec ffmpeg "$@"')
    with pytest.raises(TryAgain, match="no progress"):
        await transcode(connection, replace(job, stall_s=0.8, programs=Programs(ffmpeg=stuck)))


@pytest.mark.parametrize("whom", ["ffmpeg", "all of it"])
async def test_a_killed_encoder_is_noticed(connection: ssh.Connection, slow_job: Job, whom: str) -> None:
    job = slow_job
    task = asyncio.create_task(transcode(connection, job))
    await async_wait_until(lambda: encoders(job), description="ffmpeg is at work there")
    if whom == "ffmpeg":
        os.kill(encoders(job)[0], signal.SIGKILL)
    else:
        os.killpg(int((Path(job.work_root) / job.name / "encode.pid").read_text()), signal.SIGKILL)
    with pytest.raises(TryAgain, match=r"137|ended from outside"):
        await task


@pytest.mark.parametrize("at", ["/source", "/6666_240P.flv"], ids=["source", "rendition"])
async def test_a_killed_probe_says_nothing_of_the_recording(
    connection: ssh.Connection, job: Job, tmp_path: Path, at: str
) -> None:
    """A host that ran out of memory killed it: the classes would be refused for a recording that is good."""
    killed = stand_in(tmp_path / "ffprobe", f'case "$*" in *{at}) kill -KILL $$;; esac\nexec ffprobe "$@"')
    with pytest.raises(TryAgain, match="ffprobe was killed") as raised:
        await transcode(connection, replace(job, programs=Programs(ffprobe=killed)))
    assert decide.blame(raised.value) is decide.Blame.HOST


async def test_a_job_that_takes_too_long_is_timed_out(connection: ssh.Connection, slow_job: Job) -> None:
    """By the clock since it was begun, also where it is taken up again."""
    job = replace(slow_job, begun_at=time.time(), limit_s=lambda _: 8.0)
    with pytest.raises(Refuse, match="not done after 8 s in all") as raised:
        await transcode(connection, job)
    assert raised.value.code is TRANSCODE_TIMED_OUT
    with pytest.raises(Refuse, match="not done after 8 s in all"):
        await transcode(connection, job)
