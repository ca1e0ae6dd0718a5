"""A job goes on without us, is found again, and ends when it is cancelled or left."""

import asyncio
import itertools
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lectern.ecs import detached, ssh
from lectern.ecs import transcode as ecs
from lectern.ecs.detached import DetachedStep
from lectern.ecs.transcode import Job, JobReport
from lectern.errors import TRANSCODE_TIMED_OUT, Refuse, TryAgain
from tests.effects.conftest import Origin, Sshd, login
from tests.effects.ecs.conftest import SOURCE, UP, encoders, stand_in, transcode, under
from tests.stage import running_with
from tests.waiting import async_wait_until, cancelled

pytestmark = pytest.mark.live


async def test_job_that_we_are_torn_from_goes_on_and_is_found_again(sshd: Sshd, slow_job: Job, origin: Origin) -> None:
    """The same ffmpeg, one download, one upload."""
    job = slow_job
    async with login(sshd) as first:
        task = asyncio.create_task(ecs.transcode(first, job, JobReport()))
        await async_wait_until(lambda: encoders(job), description="ffmpeg is at work there")
        await cancelled(task)
    (before,) = encoders(job)
    async with login(sshd) as second:
        report = JobReport()
        again = asyncio.create_task(transcode(second, job, report))
        await async_wait_until(lambda: report.percent > 0 or again.done(), description="it is watched again")
        assert encoders(job) == [before]
        assert len(await again) == 1
    assert origin.took("GET", SOURCE) == 1
    assert origin.took("PUT", UP) == 1


async def test_a_job_that_was_made_is_not_made_again(connection: ssh.SshConnection, job: Job, origin: Origin) -> None:
    """Torn off after the upload: one look, and it is told."""
    first = await ecs.transcode(connection, job, JobReport())
    assert await transcode(connection, job) == first.made
    assert (origin.took("GET", SOURCE), origin.took("PUT", UP)) == (1, 1)


@pytest.mark.parametrize("step", ["fetch", "encode", "upload"])
async def test_a_job_that_is_left_leaves_nothing(
    connection: ssh.SshConnection, job: Job, slow_job: Job, origin: Origin, tmp_path: Path, step: str
) -> None:
    its_own = f"sleep 60.{os.getpid()}"  # other tests run beside this one
    marker = {"fetch": "--input-file", "encode": "-force_key_frames", "upload": its_own}[step]
    origin.slow_s = 2.0 if step == "fetch" else 0.0
    job = slow_job if step == "encode" else job
    if step == "upload":
        job = under(job, ecs_curl=stand_in(tmp_path / "curl", f"exec {its_own}"))
    report = JobReport()

    def ours() -> set[int]:
        return set(running_with(marker)) & set(
            running_with(its_own if step == "upload" else job.settings.ecs_work_root)
        )

    task = asyncio.create_task(transcode(connection, job, report))
    await async_wait_until(lambda: report.step == step and ours(), description=f"it is at {step}")
    began = ours()
    await cancelled(task)
    await async_wait_until(lambda: not began & ours(), description="what watched it there sees that it has ended")


async def test_what_nobody_looked_at_for_long_is_ended_by_the_next_job(
    connection: ssh.SshConnection, job: Job, slow_job: Job
) -> None:
    """Its teacher went for good, or was cut off and took another host."""
    lost = replace(slow_job, attempts=(7,))
    task = asyncio.create_task(ecs.transcode(connection, lost, JobReport()))
    await async_wait_until(lambda: encoders(lost), description="the lost job encodes")
    await cancelled(task)
    long_ago = time.time() - 20 * 60
    os.utime(Path(job.settings.ecs_work_root) / lost.name / "seen", (long_ago, long_ago))
    assert len(await transcode(connection, job)) == 1


MOMENTS = 7  # the start, and a few looks at what it says
_numbers = itertools.count()


@pytest.fixture
def sleeping() -> list[str]:
    """A program that can be told from all others."""
    return ["sleep", f"300.{os.getpid()}{next(_numbers)}"]


async def cancelled_at(
    monkeypatch: pytest.MonkeyPatch, moment: int, when: str, work: Coroutine[Any, Any, object]
) -> None:
    """Cancel *work* before or after it waits for the host for the *moment*-th time."""
    real: Callable[[ssh.SshConnection, Any], Awaitable[Any]] = ssh.SshConnection._threaded
    task = asyncio.ensure_future(work)
    waits = itertools.count(1)

    async def counted(self: ssh.SshConnection, wait: Callable[[], Any]) -> Any:
        now = next(waits) == moment
        if now and when == "before":
            task.cancel()
        try:
            return await real(self, wait)
        finally:
            if now and when == "after":
                task.cancel()

    with monkeypatch.context() as patch:
        patch.setattr(ssh.SshConnection, "_threaded", counted)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 30)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_is_cancelled_at_any_moment_of_its_start_is_gone_or_ended_by_leaving(
    sshd: Sshd,
    connection: ssh.SshConnection,
    sleeping: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    when: str,
) -> None:
    """A step of a job would go on without us, if it has begun."""

    def gone() -> bool:
        return not running_with(" ".join(sleeping))

    for moment in range(1, MOMENTS + 1):
        folder = await detached.enter(connection, str(tmp_path), "job")
        step = detached.run(connection, folder, DetachedStep("step", sleeping), 60)
        await cancelled_at(monkeypatch, moment, when, step)
        async with login(sshd) as another:  # as a job that is cancelled is left
            await detached.leave(another, str(tmp_path), "job")
        assert list(tmp_path.iterdir()) == []
        await async_wait_until(gone, description=f"all is gone, cancelled {when} wait {moment}")


async def test_a_step_whose_folder_is_taken_away_is_told_so_and_not_watched_for_ever(
    connection: ssh.SshConnection, sleeping: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As of a teacher that was away for so long that another one has taken over its job, and is done with it."""
    monkeypatch.setattr(detached, "_RUN", detached._RUN.replace("flock -w 20", "flock -w 1"))  # it looks sooner
    folder = await detached.enter(connection, str(tmp_path), "job")
    watching = asyncio.ensure_future(detached.run(connection, folder, DetachedStep("step", sleeping), 60))
    # The program itself, not the shell that is about to begin it: without its folder that one would end by itself.
    await async_wait_until(lambda: running_with(*sleeping, name="sleep"), description="it runs there")
    group = int((tmp_path / "job" / "step.pid").read_text())
    shutil.rmtree(tmp_path / "job")
    try:
        with pytest.raises(TryAgain, match="is gone"):
            await asyncio.wait_for(watching, 20)
        with pytest.raises(TryAgain, match="is gone"):
            await detached.run(connection, folder, DetachedStep("next", sleeping), 60)
    finally:
        os.killpg(group, signal.SIGKILL)
    await async_wait_until(lambda: not running_with(str(tmp_path)), description="nobody watches it any more")


async def test_a_folder_goes_though_nothing_more_can_be_written_into_it(
    connection: ssh.SshConnection, tmp_path: Path
) -> None:
    """It may be what has filled the disk; a folder in the place of the file stands for a disk without an inode."""
    folder = Path((await detached.enter(connection, str(tmp_path), "job")).path)
    (folder / "stop").mkdir()
    await detached.leave(connection, str(tmp_path), "job")
    assert not folder.exists()


async def test_an_encoder_that_stands_still_is_noticed(connection: ssh.SshConnection, job: Job, tmp_path: Path) -> None:
    """Although it goes on reporting."""
    says = "while :; do printf 'out_time_us=1000000\\nprogress=continue\\n'; sleep 0.2; done"
    stuck = stand_in(tmp_path / "ffmpeg", f'case "$*" in *-force_key*) {says};; esac\nexec ffmpeg "$@"')
    with pytest.raises(TryAgain, match="no progress"):
        await transcode(connection, under(replace(job, stall_s=0.8), ecs_ffmpeg=stuck))


async def test_a_job_that_takes_too_long_is_timed_out(connection: ssh.SshConnection, job: Job, tmp_path: Path) -> None:
    """By the clock since it was begun, also where it is taken up again."""
    endless = stand_in(tmp_path / "endless", 'case "$*" in *-force_key*) exec sleep 300;; esac\nexec ffmpeg "$@"')
    job = under(replace(job, begun_at=time.time(), limit_s=lambda _: 6.0), ecs_ffmpeg=endless)
    with pytest.raises(Refuse, match="not done after 6 s in all") as raised:
        await transcode(connection, job)
    assert raised.value.code is TRANSCODE_TIMED_OUT
    with pytest.raises(Refuse, match="not done after 6 s in all"):
        await transcode(connection, job)
