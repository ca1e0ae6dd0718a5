"""Runs one attempt on an ECS host: shows its progress, reconnects after a cut, and cleans up."""

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from sqlalchemy.exc import OperationalError

from flows import show
from flows.host import Teacher, log
from flows.teacher.ecs.kept import TAKEN, Kept
from flows.teacher.ecs.line import Line, NoLongerOurs, Place, hosts
from lectern.decide.transcode import total_limit_s
from lectern.effects import process
from lectern.effects.ecs import ssh, transcode
from lectern.effects.ecs.job import Job, Made, Programs
from lectern.effects.files.upload import OssKey, Target
from lectern.effects.rows import ecs_hosts
from lectern.effects.rows.transcodings import Due
from lectern.errors import LecternError, Misuse
from lectern.places import Places
from lectern.settings import TeacherSettings
from lectern.states import Resolution
from lectern.timing import backoff_s

CONNECT_S = 15.0
BEAT_S = 4.0
RECONNECTS = 4
"""Number of reconnects in a row, with doubling pauses, after which the host is given up."""

LASTING_S = 60.0
LINE = Line()

Publish = Callable[[Sequence[Made]], Awaitable[None]]
Missed = Mapping[Resolution, LecternError]


def target(settings: TeacherSettings) -> Target:
    """Where renditions are uploaded to; raises Misuse if UPLOAD_URL, its key or PUBLIC_URL is wrong."""
    key = None
    if settings.oss_region and settings.oss_access_key_id and settings.oss_access_key_secret:
        key = OssKey(
            settings.oss_region, settings.oss_access_key_id, settings.oss_access_key_secret, settings.oss_endpoint
        )
    return Target(settings.upload_url or "", settings.public_url or "", key)


def job(settings: TeacherSettings, due: Sequence[Due]) -> Job:
    """The job that makes *due*: a new one from now on, or the job that they are in already."""
    new = Job(
        record_id=due[0].record_id,
        attempts=tuple(one.attempt for one in due),
        source_url=due[0].source_url or "",
        wanted=tuple(one.resolution for one in due),
        target=target(settings),
        begun_at=time.time(),
        limit_s=total_limit_s,
        allowed=Places.listed(settings.allowed_origins),
        work_root=settings.ecs_work_root,
        keyframe_s=settings.keyframe_interval_s,
        programs=Programs(settings.ecs_wget, settings.ecs_ffmpeg, settings.ecs_ffprobe, settings.ecs_curl),
    )
    begun = due[0].ecs_job if due[0].begun_at is not None else None
    return dataclasses.replace(new, folder=begun) if begun and new.goes_on_in(begun) else new


async def pause(tries: int) -> None:
    """Wait before the next try: about 1 s after the first, twice as long after each further try."""
    await asyncio.sleep(backoff_s(tries - 1, 1.0))


def connect(settings: TeacherSettings, where: ssh.Host) -> Any:  # noqa: ANN401 (the context manager of ssh.connect)
    """A login on an ECS host; raises Misuse if ECS_SSH_KEY or ECS_KNOWN_HOSTS is not set."""
    if not (settings.ecs_ssh_key and settings.ecs_known_hosts):
        raise Misuse("ECS_SSH_KEY and ECS_KNOWN_HOSTS must be set for ECS transcoding.")
    return ssh.connect(where, settings.ecs_ssh_key, settings.ecs_known_hosts, timeout_s=CONNECT_S)


async def tidy(host: Teacher, left: Sequence[Due]) -> None:
    """Remove from the hosts the files and programs that killed runs have left of the renditions *left*."""
    known = hosts(host.settings)
    for where, name in {(one.ecs_host or "", one.ecs_job or "") for one in left}:
        if where in known:
            await leave_anew(host, known[where], name)


async def leave_anew(host: Teacher, where: ssh.Host, name: str, tries: int = 1) -> None:
    """Connect to a host anew and end a job there; if that fails, a later job on the host ends it."""
    for number in range(1, tries + 1):
        try:
            async with connect(host.settings, where) as connection:
                if await _leave(host, connection, name):
                    return
        except LecternError as error:
            log.warning("%s: may be left on %s: %s", name, where, error.message)
        if number < tries:
            await pause(number)


async def _leave(host: Teacher, connection: ssh.Connection, name: str) -> bool:
    """End the job on its host and clean up; returns whether nothing is left of it there."""
    try:
        await transcode.leave(connection, host.settings.ecs_work_root, name)
    except LecternError as error:  # what really happened must not be hidden by this
        log.warning("%s: is left on %s: %s", name, connection.host, error.message)
        return False
    await host.commit(ecs_hosts.detached, str(connection.host), name)
    return True


class Attempt:
    """A job on the host that it was given."""

    def __init__(self, host: Teacher, place: Place, owner: str, made_there: Job, *, wanted: bool) -> None:
        self._host, self._place, self._job = host, place, made_there
        self._kept = Kept(host, made_there, place.due, owner, wanted=wanted)
        self.left = False  # something of it may still be on the host
        self._reached = place.again
        self._was_ended = False
        self._verdict: str | None = None

    async def run(self, publish: Publish) -> Missed:
        """Make the renditions and publish them by *publish*; returns what went wrong with one of them alone.

        Raises NoLongerOurs, or what went wrong with all.

        If a person cancels it, what runs on the host is ended; if this process ends, it stays there, to be found again.
        """
        working = asyncio.ensure_future(self._work(publish))
        keeping = asyncio.ensure_future(self._keep(working))
        try:
            return await working
        except asyncio.CancelledError:
            if keeping.done() and not keeping.cancelled() and (error := keeping.exception()) is not None:
                raise error from None
            if self._verdict is not None:
                raise NoLongerOurs(self._verdict) from None
            raise
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})

    async def _work(self, publish: Publish) -> Missed:
        try:
            return await self._reconnected(publish)
        except asyncio.CancelledError:
            if self._reached and not self._was_ended and not self._stays:  # no connection is open just now
                await process.surely(leave_anew(self._host, self._place.host, self._job.name))
            raise

    async def _reconnected(self, publish: Publish) -> Missed:
        lost = 0
        while True:
            began = time.monotonic()
            try:
                return await self._connected(publish)
            except ssh.Lost as error:
                lost = 1 if time.monotonic() - began > LASTING_S else lost + 1
                if not self._reached or lost > RECONNECTS:
                    raise
                log.warning("%s: %s; it goes on there, and is looked for", self._job.name, error.message)
            await pause(lost)

    async def _connected(self, publish: Publish) -> Missed:
        async with connect(self._host.settings, self._place.host) as connection:
            self._reached = True
            try:
                outcome = await transcode.transcode(connection, self._job, self._kept.report)
            except ssh.Lost:
                raise
            except (LecternError, asyncio.CancelledError):
                if not self._stays:
                    await process.surely(self._leave(connection))
                raise
            self._kept.published = True
            await publish(outcome.made)
            await process.surely(self._leave(connection))
            return outcome.missed

    async def _leave(self, connection: ssh.Connection) -> None:
        self._was_ended = True
        self.left = not await _leave(self._host, connection, self._job.name)

    @property
    def _stays(self) -> bool:
        """Whether the job is to go on on its host without us."""
        return self._verdict == TAKEN or self._host.runs.draining()

    async def _keep(self, working: "asyncio.Future[Missed]") -> None:
        name = f"{self._job.record_id} {'+'.join(self._job.wanted)}"
        shown = show.Progress(f"transcode-{self._job.record_id}", f"transcode {name} on {self._place.host.name}")
        try:
            async with shown as bar:
                while self._verdict is None:
                    self._verdict = await self._beat()
                    bar.set(self._kept.report.percent)
                    await asyncio.sleep(0 if self._verdict else BEAT_S)
        finally:
            if not self._kept.published:
                working.cancel()

    async def _beat(self) -> str | None:
        """Look after the job; returns why it is to be ended, if it is. While the database is away, it goes on."""
        try:
            return await self._kept.beat()
        except OperationalError as error:  # nobody else can take it over meanwhile
            log.warning("%s: goes on, although the database does not answer: %s", self._job.name, error.orig)
            return None
