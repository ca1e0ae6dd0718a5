"""A job goes on without us, is found again, and leaves nothing where it is left."""

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lectern.effects.ecs import ssh
from lectern.effects.ecs import transcode as ecs
from lectern.effects.ecs.job import Job, Programs, Report
from tests.effects.conftest import Origin, Sshd, running_with
from tests.effects.ecs.at_work import SOURCE, UP, encoders, stand_in, transcode
from tests.waiting import async_wait_until

pytestmark = pytest.mark.live


async def test_a_job_that_we_are_torn_from_goes_on_and_is_found_again(
    sshd: Sshd, slow_job: Job, origin: Origin
) -> None:
    """The same ffmpeg, one download, one upload."""
    job = slow_job
    host = ssh.Host.parse(sshd.url)
    async with ssh.connect(host, sshd.key, sshd.known_hosts, timeout_s=10) as first:
        task = asyncio.create_task(ecs.transcode(first, job, Report()))
        await async_wait_until(lambda: encoders(job), description="ffmpeg is at work there")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (before,) = encoders(job)
    async with ssh.connect(host, sshd.key, sshd.known_hosts, timeout_s=10) as second:
        report = Report()
        again = asyncio.create_task(transcode(second, job, report))
        await async_wait_until(lambda: report.percent > 0 or again.done(), description="it is watched again")
        assert encoders(job) == [before]
        assert len(await again) == 1
    assert origin.took("GET", SOURCE) == 1
    assert origin.took("PUT", UP) == 1


async def test_a_job_that_was_made_already_is_not_made_again(
    connection: ssh.Connection, job: Job, origin: Origin
) -> None:
    """Torn off after the upload: one look, and it is told."""
    first = await ecs.transcode(connection, job, Report())
    assert await transcode(connection, job) == list(first.made)
    assert (origin.took("GET", SOURCE), origin.took("PUT", UP)) == (1, 1)


@pytest.mark.parametrize("step", ["fetch", "encode", "upload"])
async def test_a_job_that_is_left_leaves_nothing(
    connection: ssh.Connection, job: Job, slow_job: Job, origin: Origin, tmp_path: Path, step: str
) -> None:
    if step == "fetch":
        origin.slow_s = 0.3
    elif step == "encode":
        job = slow_job
    else:
        job = replace(job, programs=Programs(curl=stand_in(tmp_path / "curl", f"exec sleep 60.{os.getpid()}")))
    marker = {"fetch": "--input-file", "encode": "-force_key_frames", "upload": f"sleep 60.{os.getpid()}"}[step]
    report = Report()

    def ours() -> set[int]:
        """Other tests run beside this one; its upload is known by its number."""
        found = set(running_with(marker))
        return found if step == "upload" else found & set(running_with(job.work_root))

    task = asyncio.create_task(transcode(connection, job, report))
    await async_wait_until(lambda: report.step == step and ours(), description=f"it is at {step}")
    began = ours()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not began & ours()


async def test_what_nobody_looked_at_for_long_is_ended_by_the_next_job(
    connection: ssh.Connection, job: Job, slow_job: Job
) -> None:
    """Its teacher went for good, or was cut off and took another host."""
    lost = replace(slow_job, attempts=(7,))
    task = asyncio.create_task(ecs.transcode(connection, lost, Report()))
    await async_wait_until(lambda: encoders(lost), description="the lost job encodes")
    task.cancel()
    await asyncio.wait({task})
    long_ago = time.time() - 20 * 60
    os.utime(Path(job.work_root) / lost.name / "seen", (long_ago, long_ago))
    assert len(await transcode(connection, job)) == 1
