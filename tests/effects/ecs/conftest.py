"""A login on this machine, jobs for it, a quick one and one that takes its time, and what claims have in common."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from lectern.ecs import detached, ssh
from lectern.ecs import transcode as ecs_transcode
from lectern.ecs.transcode import Job, JobReport
from lectern.settings import TeacherSettings
from lectern.states import Resolution
from tests.effects.conftest import Origin, Sshd, login, make_recording
from tests.stage import running_with
from tests.waiting import async_wait_until

SOURCE = "/it's%20a%20%22lesson%22/6666.flv"
UP = "/up/6666/6666_240P.flv"


async def transcode(connection: ssh.SshConnection, job: Job, report: JobReport | None = None) -> dict[Resolution, str]:
    """The URLs of what was made, or the error of the first that was not; whatever happens, nothing is left behind."""
    try:
        outcome = await ecs_transcode.transcode(connection, job, report or JobReport())
        if outcome.error is not None:
            raise outcome.error
        return dict(outcome.made)
    finally:
        await detached.leave(connection, job.settings.ecs_work_root, job.name)
        root = Path(job.settings.ecs_work_root)
        assert not root.exists() or list(root.iterdir()) == []
        gone = "what watched a step there has seen its end"
        await async_wait_until(lambda: running_with(job.settings.ecs_work_root) == [], description=gone)


def under(job: Job, **changed: object) -> Job:
    """*job* with other settings."""
    return replace(job, settings=job.settings.model_copy(update=changed))


def stand_in(path: Path, script: str) -> str:
    """A program that does what the test needs; *script* is in the words of sh."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def encoders(job: Job) -> list[int]:
    """The ffmpegs that encode for *job*."""
    return running_with(job.settings.ecs_work_root, "-force_key_frames", name="ffmpeg")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecs_transcode, "_PAUSES", {"wait_initial": 0.05, "wait_max": 0.05})


@pytest.fixture
async def connection(sshd: Sshd) -> AsyncIterator[ssh.SshConnection]:
    async with login(sshd) as made:
        yield made


@pytest.fixture
def job(origin: Origin, recording: Path, tmp_path: Path) -> Job:
    origin.files[SOURCE] = recording.read_bytes()
    return Job(
        record_id=6666,
        attempts=(1,),
        source_url=f"{origin.url}{SOURCE}",
        wanted=(Resolution.P240,),
        begun_at=time.time(),
        limit_s=lambda duration_s: 3600.0 if duration_s is None else 3 * duration_s + 120,
        settings=TeacherSettings.load(
            transcode_sign_key=SecretStr("secret"),
            upload_url=f"{origin.url}/up/",
            public_url=f"{origin.url}/up",
            allowed_origins="127.0.0.1",
            ecs_work_root=str(tmp_path / "the host's work"),
        ),
    )


@pytest.fixture
def slow_job(job: Job, origin: Origin, tmp_path: Path) -> Job:
    """It encodes 20 s in real time, so that something can happen to it meanwhile."""
    origin.files[SOURCE] = make_recording(tmp_path / "long.flv", seconds=20).read_bytes()
    slow = stand_in(tmp_path / "slow", 'case "$*" in *-force_key*) exec ffmpeg -re "$@";; esac\nexec ffmpeg "$@"')
    return under(job, ecs_ffmpeg=slow)
