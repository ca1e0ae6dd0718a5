"""Jobs that stand still at a step, so that something can befall them there, however quick or busy the machine is."""

import os
import signal
from contextlib import suppress

import psutil

from tests.flows.ecs.servers import Ecs
from tests.stage import wait_until
from town.faults import Fault

STEPS = {
    "fetch": ("wget", "--input-file"),
    "encode": ("ffmpeg", "-force_key_frames"),
    "upload": ("curl", "--upload-file"),
}
"""By its step, what a program of a job is called, and how it is known."""

_SHORT_S = 8  # what is held at its upload is encoded before


class Held:
    """A job that stands still at *step*: half of its source is there, or of its picture, or its upload has no answer.

    wget and curl bear it for half a minute.
    """

    def __init__(self, ecs: Ecs, step: str) -> None:
        self.step = step
        self.record = ecs.town.record(**({"seconds": _SHORT_S} if step == "upload" else {}))
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
            return next(iter(self._ecs.programs(name, marker, f"/{self.record}_")), 0)

        self.program = wait_until(found, description=f"{self.record} is at {self.step}")
        if self.step == "encode":
            os.kill(self.program, signal.SIGSTOP)
        else:
            wait_until(lambda: self._fault.times == 0, description=f"the origin holds the {self.step} of {self.record}")
        wait_until(lambda: self._ecs.row(self.record)["ecs_job"], description="it is known where")
        return self

    @property
    def lives(self) -> bool:
        """Whether its program is still there."""
        return psutil.pid_exists(self.program) and psutil.Process(self.program).status() != psutil.STATUS_ZOMBIE

    def go_on(self) -> None:
        self._fault.held = False
        with suppress(ProcessLookupError):
            os.kill(self.program, signal.SIGCONT)


def at_each_step(ecs: Ecs) -> list[Held]:
    """Three jobs, each held at another step; the one that has the longest way begins first."""
    upload = Held(ecs, "upload").reached()
    return [upload, *(one.reached() for one in [Held(ecs, "encode"), Held(ecs, "fetch")])]
