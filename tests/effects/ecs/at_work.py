"""A job at work on this machine, by SSH: what the claims about it have in common."""

from pathlib import Path

from lectern.ecs import detached, ssh
from lectern.ecs import transcode as ecs
from lectern.ecs.transcode import Job, JobReport
from lectern.states import Resolution
from tests.stage import running_with

SOURCE = "/it's%20a%20%22lesson%22/6666.flv"
UP = "/up/6666/6666_240P.flv"


async def transcode(connection: ssh.SshConnection, job: Job, report: JobReport | None = None) -> dict[Resolution, str]:
    """The URLs of what was made, or the error of the first that was not; whatever happens, nothing is left behind."""
    try:
        outcome = await ecs.transcode(connection, job, report or JobReport())
        for error in outcome.missed.values():
            raise error
        return dict(outcome.made)
    finally:
        await detached.leave(connection, job.work_root, job.name)
        root = Path(job.work_root)
        assert not root.exists() or list(root.iterdir()) == []
        assert running_with(job.work_root) == []


def stand_in(path: Path, script: str) -> str:
    """A program that does what the test needs; *script* is in the words of sh."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def encoders(job: Job) -> list[int]:
    """The ffmpegs that encode for *job*."""
    return [
        pid
        for pid in running_with(job.work_root)
        if pid in running_with("-force_key_frames") and called(pid) == "ffmpeg"
    ]


def called(pid: int) -> str:
    """What the program of a process is called; nothing where it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
