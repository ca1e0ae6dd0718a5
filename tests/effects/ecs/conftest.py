"""A login on this machine, and jobs for it: a quick one, and one that takes its time."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from lectern.allowlist import Allowlist
from lectern.ecs import ssh, transcode
from lectern.ecs.probe import Programs
from lectern.ecs.transcode import Job
from lectern.states import Resolution
from lectern.storage.oss import UploadTarget
from tests.effects.conftest import Origin, Sshd, make_recording
from tests.effects.ecs.at_work import SOURCE, stand_in


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcode, "backoff_s", lambda *_: 0.05)


@pytest.fixture
async def connection(sshd: Sshd) -> AsyncIterator[ssh.SshConnection]:
    async with ssh.connect(ssh.SshHost.parse(sshd.url), sshd.key, sshd.known_hosts, timeout_s=10) as made:
        yield made


@pytest.fixture
def job(origin: Origin, recording: Path, tmp_path: Path) -> Job:
    origin.files[SOURCE] = recording.read_bytes()
    return Job(
        record_id=6666,
        attempts=(1,),
        source_url=f"{origin.url}{SOURCE}",
        wanted=(Resolution.P240,),
        target=UploadTarget(f"{origin.url}/up/", f"{origin.url}/up"),
        begun_at=time.time(),
        limit_s=lambda duration_s: 3600.0 if duration_s is None else 3 * duration_s + 120,
        allowed=Allowlist.listed("127.0.0.1"),
        work_root=str(tmp_path / "the host's work"),
    )


@pytest.fixture
def slow_job(job: Job, origin: Origin, tmp_path: Path) -> Job:
    """It encodes 20 s in real time, so that something can happen to it meanwhile."""
    origin.files[SOURCE] = make_recording(tmp_path / "long.flv", seconds=20).read_bytes()
    slow = stand_in(tmp_path / "slow", 'case "$*" in *-force_key*) exec ffmpeg -re "$@";; esac\nexec ffmpeg "$@"')
    return replace(job, programs=Programs(ffmpeg=slow))
