"""Runs the steps of a job on its ECS host, each within the time left for the whole job."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from lectern.effects import process
from lectern.effects.ecs import check, detached, ssh
from lectern.effects.ecs.detached import Ended, Folder, Step
from lectern.effects.ecs.job import Job, Report
from lectern.errors import NO_ECS_ROOM, TRANSCODE_TIMED_OUT, CallAPerson, FallBack, Refuse, TryAgain
from lectern.timing import backoff_s

T = TypeVar("T")

_NONE_LEFT_BYTES = 1024**2


@dataclass(frozen=True)
class Steps:
    """A job in its folder on a host, and its progress."""

    connection: ssh.Connection
    job: Job
    folder: Folder
    report: Report

    async def run(self, step: Step) -> Ended:
        """Bring *step* to its end; raises Refuse (the time is over), FallBack (the disk is full), TryAgain."""
        limit_s = self.job.limit_s(self.report.duration_s)
        left_s = self.job.begun_at + limit_s - time.time()
        what = f"{self.job.name}: {step.name} on {self.connection.host}"
        over = f"{what} was not done after {limit_s:.0f} s in all"
        if left_s <= 0:
            raise Refuse(over, TRANSCODE_TIMED_OUT)
        try:
            ended = await detached.run(self.connection, self.folder, step, left_s)
        except process.TimedOut as error:
            raise Refuse(f"{over}; it said last: {error.last_words or 'nothing'}", TRANSCODE_TIMED_OUT) from error
        is_full = ended.free_bytes is not None and ended.free_bytes < _NONE_LEFT_BYTES
        if ended.exit_code != 0 and (detached.NO_ROOM in ended.errors or is_full):
            raise FallBack(f"{what} ended with {ended.exit_code}: {ended.last_words}; its disk is full", NO_ECS_ROOM)
        if ended.exit_code is None:
            raise TryAgain(f"{what} was ended from outside")
        return ended

    def missing(self, program: str, package: str) -> CallAPerson:
        """The error to raise if the host lacks *program*."""
        return check.missing(self.connection, program, package)


async def tried(times: int, work: Callable[[int], Awaitable[T]], passes: Callable[[TryAgain], bool]) -> T:
    """Call *work* with the number of its try, and return its result; retry after a TryAgain that *passes*.

    The pauses double from 1 s up to 16 s.
    """
    for number in range(1, times):
        try:
            return await work(number)
        except TryAgain as error:
            if not passes(error):
                raise
        await asyncio.sleep(backoff_s(number - 1, 1.0, 16.0))
    return await work(times)
