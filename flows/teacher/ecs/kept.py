"""Keeps a job on an ECS host ours: renews its lease, writes down how far it is, and ends it when nobody needs it."""

import math
import time
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from flows.host import Teacher
from flows.teacher.ecs.line import LEASE_S
from lectern.decide.transcode import total_limit_s
from lectern.effects.ecs.job import Job, Report
from lectern.effects.rows import bookings, ecs_hosts, events, renditions
from lectern.effects.rows.transcodings import Due
from lectern.facts import Event
from lectern.timing import Pace

RENEW_S = LEASE_S / 4
"""Seconds between two renewals of a lease: a teacher that stands still for half a minute keeps it."""

SLACK_S = 60.0
"""Seconds after its limit after which the sweeper gives up an attempt, if the attempt's own process did not."""

TAKEN = "another run has taken it over"
SETTLED = "it was settled meanwhile"
UNWANTED = "no class needs it any more"


class Kept:
    """A job of *owner* that makes *due*; if it was begun for classes (*wanted*), it ends with the last of them."""

    def __init__(self, host: Teacher, job: Job, due: Sequence[Due], owner: str, *, wanted: bool) -> None:
        self._host, self._job, self._due, self._owner, self._wanted = host, job, due, owner, wanted
        self.report = Report()
        self.published = False
        self._stage: tuple[str, bool] | None = None
        self._pace = Pace()
        self._renewed_at = -math.inf

    async def beat(self) -> str | None:
        """Look after the job; returns why it is to be ended, if it is.

        It is called every few seconds, and writes far more seldom: a read does not wait for those who write.
        """
        progress, now = self._progress(), self.report.clock()
        if not progress and now - self._renewed_at < RENEW_S and not await self._host.look(self._is_over):
            return None
        verdict = await self._host.commit(self._keep, progress)
        self._renewed_at = now
        return verdict

    def _progress(self) -> Mapping[str, object]:
        """The progress to write now, if any; the begin of a step and its first forecast are written at once."""
        report, left_s = self.report, self.report.left_s
        if (stage := (report.step, left_s is None)) != self._stage:
            self._stage, self._pace = stage, Pace(report.clock)
        if (percent := self._pace.due(report.percent)) is None:
            return {}
        return {"step": report.step, "percent": percent, "eta": None if left_s is None else time.time() + left_s}

    def _is_over(self, connection: Connection) -> bool:
        """Whether the job may be over; if so, the transaction that ends it checks again."""
        still = ecs_hosts.ours(connection, self._due, self._owner)
        return len(still) < len(self._due) or (self._wanted and not wanted(connection, still))

    def _keep(self, connection: Connection, progress: Mapping[str, object]) -> str | None:
        """Renew the leases, write the progress, drop what was settled; returns why the job is to be ended, if it is."""
        now = time.time()
        deadline = self._job.begun_at + total_limit_s(self.report.duration_s) + SLACK_S
        still = ecs_hosts.reported(connection, self._due, self._owner, now + LEASE_S, deadline=deadline, **progress)
        if not still:
            owner = ecs_hosts.owner_of(connection, self._due)
            return None if self.published else TAKEN if owner not in (None, self._owner) else SETTLED
        self._due = still
        if self._wanted and not wanted(connection, still):
            self._drop(connection, now)
            return UNWANTED
        return None

    def _drop(self, connection: Connection, now: float) -> None:
        """End the transcoding, in the transaction that saw its last class cancelled: none can join meanwhile."""
        for one in self._due:
            renditions.drop(connection, one.key, UNWANTED, now)
        noted = [Event("ECS transcoding ended", stem=one.stem, detail=UNWANTED) for one in self._due]
        events.note(connection, self._host.journal, self._host.settings.name, noted, now)


def wanted(connection: Connection, due: Sequence[Due]) -> bool:
    """Whether a class waits for any of *due*."""
    return any(bookings.waiting_for(connection, *one.key) for one in due)


def all_wanted(connection: Connection, due: Sequence[Due]) -> bool:
    """Whether classes wait for each of *due*."""
    return all(wanted(connection, [one]) for one in due)
