"""Makes renditions of one recording on our ffmpeg servers: host after host, and one result for each rendition.

The jobs of this process wait for their hosts in one queue: the class that begins first gets the next free place.
"""

import asyncio
import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from flows import artifacts, failures
from flows.host import TeacherHost, log
from flows.outbox_publisher import publish_outbox
from lectern import errors
from lectern.db import bookings, events, outbox, transcodings
from lectern.db.transcodings import BegunJob
from lectern.decide import transcoding as decide
from lectern.decide.transcoding import total_limit_s
from lectern.ecs import detached, ssh, transcode
from lectern.ecs.transcode import Job, JobOutcome, JobReport, hosts
from lectern.errors import CallAPerson, Caught, FallBack, LecternError, Refuse
from lectern.i18n import Text, labelled, msgid
from lectern.model.facts import EcsHost, Event, RenditionKey
from lectern.model.tables.teacher import RenditionRow
from lectern.settings import TeacherSettings
from lectern.states import Backend, Resolution
from lectern.timing import backoff_s, comes, shielded
from lectern.wire.messages import TranscodingResult
from lectern.wire.outgoing import Outgoing, OutgoingKind

LEASE_S = 60.0  # seconds for which a run owns what it is to do, renewed while it lives; then another run takes over
BEAT_S = LEASE_S / 6  # seconds between two renewals of a lease: a teacher that stands still for half a minute keeps it
CONNECT_S = 15.0
RECONNECTS = 4  # number of reconnects in a row, with doubling pauses, after which the host is given up
LASTING_S = 60.0  # seconds from a login on after which a break of the connection is the first one again
SLACK_S = 60.0
"""Seconds after its limit after which the sweeper gives up an attempt, if the attempt's own process did not."""

LOOK_S = 2.0  # seconds until a place is seen that another teacher, or a crash, has left free; our own is seen at once
YIELD_S = 2 * LOOK_S
"""Seconds for which a free place is left to another teacher whose class begins earlier, and that looks meanwhile."""

TAKEN = "another run has taken it over"
SETTLED = "it was settled meanwhile"
UNWANTED = "no class needs it any more"

Due = Sequence[RenditionRow]
Urls = Mapping[Resolution, str]


class NoLongerOurs(Exception):
    """The renditions were settled, taken over, or are needed by no class any more."""


def remote_job(settings: TeacherSettings, due: Due, begun_at: float = 0.0) -> Job:
    """What a host does to make *due* since *begun_at* (epoch seconds)."""
    return Job(
        record_id=due[0].record_id,
        attempts=tuple(rendition.attempt for rendition in due),
        source_url=due[0].source_url or "",
        wanted=tuple(rendition.resolution for rendition in due),
        begun_at=begun_at,
        limit_s=total_limit_s,
        settings=settings,
    )


def connect(settings: TeacherSettings, where: str) -> Any:  # noqa: ANN401 (the context manager of ssh.connect)
    """A login on the ECS host *where*."""
    assert settings.ecs_ssh_key is not None  # what its settings need was checked when they were read
    assert settings.ecs_known_hosts is not None
    return ssh.connect(hosts(settings)[where], settings.ecs_ssh_key, settings.ecs_known_hosts, timeout_s=CONNECT_S)


async def leave(host: TeacherHost, settings: TeacherSettings, where: str, name: str) -> bool:
    """End a job on a host, and clean up there; returns whether nothing is left. If it fails, a later job there does it.

    It logs in again: the connection of the job may be the reason why it ended.
    """
    try:
        async with connect(settings, where) as connection:
            await detached.leave(connection, settings.ecs_work_root, name)
    except LecternError as error:  # what really happened must not be hidden by this
        log.warning("%s: may be left on %s: %s", name, where, error.message)
        return False
    await host.write_tx(transcodings.detached, where, name)
    return True


class TranscodeJob:
    """The renditions *due* of one recording, which the run *owner* has made together, on host after host."""

    def __init__(self, host: TeacherHost, due: Due, owner: str) -> None:
        self.host, self.due, self.owner = host, list(due), owner
        self.settings = host.settings  # of its last try
        self.avoid: list[str] = []  # the hosts where it has failed
        self.away = 0  # number of its tries that do not count, because the host could not be reached
        self.yields_until: float | None = None  # epoch seconds
        self.wanted = False  # it was begun for classes, and ends with the last of them
        self.report = JobReport()
        self.place: BegunJob | None = None
        # The hosts, and its folders there, where something of it may be; with the settings that name the host.
        self.left: dict[tuple[str, str], TeacherSettings] = {}
        self.made: set[str] = set()
        self.unmade: list[str] = []  # what need not be made any more, and why, in words
        self.failures: list[str] = []  # why some could not be made
        self._published = False
        self._verdict: str | None = None

    @property
    def keys(self) -> list[RenditionKey]:
        """The keys of what it is still to make."""
        return [rendition.key for rendition in self.due]

    def yields(self, now: float) -> bool:
        """Whether it leaves a place to another teacher; not for long, because that one may want another host."""
        self.yields_until = self.yields_until or now + YIELD_S
        return now < self.yields_until

    async def run(self) -> None:
        """Make the renditions and publish the results.

        If a person cancels its run, what runs on the host is ended; if this process is told to end, or is killed, it
        stays there, to be found again.
        """
        try:
            await self._climb()
        except NoLongerOurs as why:
            self.unmade = [f"{rendition.stem}: {why}" for rendition in self.due]
            log.info("%s", "; ".join(self.unmade))
        except asyncio.CancelledError:
            await self._cancelled()
            raise
        while self.left:
            there, settings = self.left.popitem()
            await leave(self.host, settings, *there)

    async def _climb(self) -> None:
        self.wanted = await self.host.read_tx(is_wanted, self.due)
        for tries in count(1):
            self.place = None
            try:
                with Caught(NoLongerOurs, DBAPIError) as failed:
                    self.place = await QUEUE.place(self)
                    await self.attempt(self.place)
            finally:
                QUEUE.moved.set()
            if (error := failed.error) is None:
                return
            its = error if isinstance(error, LecternError) else CallAPerson(failures.words(error))
            await self._failed(its, tries - self.away if self.place else decide.TRIES)
            if not self.due:
                return
            await asyncio.sleep(backoff_s(tries - 1, 1.0))

    async def _cancelled(self) -> None:
        """Publish that a person has cancelled its run, once; if the process ends, the next one goes on with it."""
        if self.due and self.host.runs.was_cancelled(self.owner):
            await shielded(self.refuse())
            self.due = []

    async def refuse(self) -> None:
        """Publish that a person has cancelled its run."""
        await self._publish({}, Refuse(Text("cancelled in the UI"), errors.CANCELLED))

    # -- on a host -------------------------------------------------------------------------------------------------

    async def attempt(self, place: BegunJob) -> None:
        """Make the renditions at *place* and publish them; raises NoLongerOurs, or what went wrong first.

        What was made by then is published, and stays.
        """
        self.report, self._published = JobReport(), False
        name = f"{self.due[0].record_id} {'+'.join(rendition.resolution for rendition in self.due)}"
        where = hosts(self.settings)[place.host].name
        shown = artifacts.ProgressBar(f"transcode-{self.due[0].record_id}", f"transcode {name} on {where}")
        working = asyncio.ensure_future(self._work(place))
        async with shown as bar:
            try:
                while self._verdict is None and not working.done():
                    self._verdict = await self.beat(place)
                    bar.set(self.report.percent)
                    await asyncio.wait({working}, timeout=0 if self._verdict else BEAT_S)
                if not self._published:
                    working.cancel()
                await working
            except asyncio.CancelledError:
                if self._verdict is not None:
                    raise NoLongerOurs(self._verdict) from None
                await self._cancelled()  # first: its lease may end while a slow host ends what is left of it there
                raise
            finally:
                working.cancel()
                await shielded(asyncio.wait({working}))

    async def _work(self, place: BegunJob) -> None:
        there = place.host, place.job
        try:
            outcome = await self._reconnected(remote_job(self.settings, self.due, place.at), there)
            await self._publish(outcome.made)
        except ssh.Lost:
            raise  # the host is asked again when all is over
        except (LecternError, asyncio.CancelledError):
            if self._verdict == TAKEN or self.host.runs.draining():  # it goes on there without us
                self.left.pop(there, None)
            elif there in self.left:
                await shielded(self.leave(there))
            raise
        await shielded(self.leave(there))
        if outcome.error is not None:
            raise outcome.error

    async def leave(self, there: tuple[str, str]) -> None:
        """End what is left of it at a host, in one try."""
        if await leave(self.host, self.settings, *there):
            self.left.pop(there, None)

    async def _reconnected(self, job: Job, there: tuple[str, str]) -> JobOutcome:
        """Do the job, also if the connection breaks."""
        lost = 0
        while True:
            began = math.inf
            try:
                async with connect(self.settings, there[0]) as connection:
                    self.left[there], began = self.settings, time.monotonic()
                    outcome = await transcode.transcode(connection, job, self.report)
            except ssh.Lost as error:
                lost = 1 if time.monotonic() - began > LASTING_S else lost + 1
                if there not in self.left or lost > RECONNECTS:
                    raise
                log.warning("%s: %s; it goes on there, and is looked for", job.name, error.message)
            else:
                self._published = True
                return outcome
            await asyncio.sleep(backoff_s(lost - 1, 1.0))

    # -- kept ours -------------------------------------------------------------------------------------------------

    async def beat(self, place: BegunJob) -> str | None:
        """Renew the leases and write the step; returns why the job is to be ended, if it is.

        While the database is away, the job goes on.
        """
        try:
            return await self.host.write_tx(self._renew, place)
        except OperationalError as error:  # nobody else can take it over meanwhile
            log.warning("%s: goes on, although the database does not answer: %s", self.due[0].stem, error.orig)
            return None

    def _renew(self, connection: Connection, place: BegunJob) -> str | None:
        """Renew the leases, write the step, drop what was settled; returns why the job is to be ended, if it is."""
        now, report = time.time(), self.report
        still = transcodings.reported(
            connection,
            self.due,
            self.owner,
            lease_until=now + LEASE_S,
            deadline=place.at + total_limit_s(report.duration_s) + SLACK_S,
            step=report.step,
        )
        if not still:
            taken = transcodings.others(connection, self.keys, self.owner, now)
            return None if self._published else TAKEN if taken else SETTLED
        self.due = still
        if not self.wanted or is_wanted(connection, still):
            return None
        for rendition in still:  # in the transaction that saw the last class cancelled: none can join meanwhile
            transcodings.drop(connection, rendition.key, UNWANTED, now)
        details = dict.fromkeys((rendition.stem for rendition in still), UNWANTED)
        note(connection, self.host, msgid("ECS transcoding ended"), details, now)
        return UNWANTED

    # -- the results -----------------------------------------------------------------------------------------------

    async def _failed(self, error: LecternError, tries: int) -> None:
        """Keep the renditions that were not made if they are worth another try; else publish that they failed.

        To a host that cannot be reached a job of a later class comes back as often as that takes: see `assign`. Where
        it was logged in before the connection broke, it may be what harms the host.
        """
        first = decide.first_start(self.keys, await self.host.read_tx(transcodings.first_starts))
        is_away = self.report.step == "connect" and isinstance(error, ssh.Lost)
        is_away = is_away and decide.has_time(first, self.settings.ready_before_s, time.time())
        self.away += is_away
        where = self.place.host if self.place else "none"
        log.warning("%s: ECS host %s: %s", self.due[0].stem, where, error.message)
        self.due = [rendition for rendition in self.due if rendition.stem not in self.made]
        again = is_away or decide.again(error, tries)
        await self.host.write_tx(self._note_failure, error, again=again)
        await publish_outbox(self.host)
        if not again:
            self.failures.append(error.message)
            self.due = []
        self.avoid.append(where)

    def _note_failure(self, connection: Connection, error: LecternError, *, again: bool) -> None:
        """Note a failure in one transaction, so that no other run takes what is given up for good."""
        now = time.time()
        if self.place is not None:
            name, why = self.place.host, error.message
            why = why if why.startswith(f"{name}: ") else labelled(name, why)
            reasons = dict.fromkeys((rendition.stem for rendition in self.due), why)
            note(connection, self.host, msgid("ECS host failed"), reasons, now)
            _blame(connection, self.host, name, error, why)
        if again:
            transcodings.given_up(connection, self.due, self.owner)
        else:
            self._results(connection, self.due, {}, error)

    async def _publish(self, made: Urls, error: LecternError | None = None) -> None:
        due = self.due if error else [rendition for rendition in self.due if rendition.resolution in made]
        await self.host.write_tx(self._results, due, made, error)
        await publish_outbox(self.host)

    def _results(self, connection: Connection, due: Due, made: Urls, error: LecternError | None) -> None:
        """Put a message for each rendition that is still ours into the outbox, once."""
        ours = transcodings.reported(connection, due, self.owner, step=transcodings.PUBLISHED)
        for rendition in due:
            if rendition not in ours:
                log.info("%s: settled or taken over meanwhile; our result does not count", rendition.stem)
        if not ours:
            return
        now, channel = time.time(), self.host.settings.transcoding_channel
        results = [result_of(row, Backend.ECS, made.get(row.resolution), error) for row in ours]
        outbox.put(connection, [Outgoing(channel, OutgoingKind.CHANNEL, result) for result in results], now)
        details = {
            result.stem: labelled(result.code, error.message) if error else made[result.video_resolution]
            for result in results
        }
        self.made.update(() if error else details)
        if self.report.loudness and not error:
            note(connection, self.host, msgid("loudness"), dict.fromkeys(details, self.report.loudness), now)
        note(connection, self.host, msgid("ECS transcoding ended"), details, now)
        if self.place is not None and not error:
            transcodings.remember_host(connection, EcsHost(self.place.host), None, now)


def result_of(
    row: RenditionRow, by: Backend, url: str | None = None, error: LecternError | None = None
) -> TranscodingResult:
    """That a rendition was made, and lies at *url*, or why it was not."""
    return TranscodingResult(
        record_id=row.record_id,
        video_resolution=row.resolution,
        result="failed" if error else "sucess",
        transcode_video_url=url,
        type=by,
        attempt=row.attempt,
        code=(error.code or errors.TRANSCODE_FAILED).number if error else None,
        message=error.message if error else None,
    )


def note(connection: Connection, host: TeacherHost, what: str, details: Mapping[str, str], now: float) -> None:
    """Note in the story of each rendition, by its stem, that *what* happened, with its details."""
    noted = [Event(what, stem=stem, detail=detail) for stem, detail in details.items()]
    events.note(connection, host.settings.name, noted, now)


def is_wanted(connection: Connection, due: Due) -> bool:
    """Whether a class waits for any of *due*."""
    return any(bookings.waiting_for(connection, *rendition.key) for rendition in due)


def _blame(connection: Connection, host: TeacherHost, name: str, error: LecternError, why: str) -> None:
    """Count a failure of the host if *error* is its own; a host that is put aside gets no job for a while."""
    if not decide.is_of_host(error):
        return
    now = time.time()
    (before,) = transcodings.host_facts(connection, [name])
    after = decide.after_failure(before, now, host.settings.ecs_cooldown_s)
    transcodings.remember_host(connection, after, why, now)
    if after.aside_until > before.aside_until:
        sentence = Text(
            "{why}; it failed {failures} times in a row, and gets no job for {for_s:.0f} s",
            failures=after.failures,
            for_s=host.settings.ecs_cooldown_s,
            why=why,
        )
        outbox.put(connection, [host.alarm(errors.HOST_ASIDE, sentence, now)], now)


# -- the queue ---------------------------------------------------------------------------------------------------------
class HostQueue:
    """The jobs of this process that wait for a host; a task serves them while there are any."""

    def __init__(self) -> None:
        self._waiting: dict[TranscodeJob, asyncio.Future[BegunJob]] = {}
        self._clerk: asyncio.Task[None] | None = None
        self.moved = asyncio.Event()  # a place may be free

    async def place(self, job: TranscodeJob) -> BegunJob:
        """Wait for a host for what the job is still to make; raises FallBack (none is set up) or NoLongerOurs."""
        job.settings = job.host.settings
        first = job.due[0]
        if first.begun_at is not None and not job.avoid:
            if first.ecs_host in hosts(job.settings) and first.ecs_job is not None:
                job.left[first.ecs_host, first.ecs_job] = job.settings
                if first.ecs_job == remote_job(job.settings, job.due).name:
                    return BegunJob(first.ecs_host, first.ecs_job, first.begun_at)
            # What was begun is another job, as after a change of UPLOAD_URL or when a part of it is made. Its place is
            # given up, else this one would wait for itself; and first, because a slow host may take longer than our
            # lease to end it: who takes it over then must not begin with that again.
            await job.host.write_tx(transcodings.given_up, job.due, job.owner)
            for there in list(job.left):
                await job.leave(there)
        given: asyncio.Future[BegunJob] = asyncio.get_running_loop().create_future()
        self._waiting[job] = given
        self.moved.set()
        if self._clerk is None or self._clerk.done():
            self._clerk = asyncio.create_task(self._serve(job.host))
        try:
            return await given
        finally:
            self._waiting.pop(job, None)

    async def _serve(self, host: TeacherHost) -> None:
        while self._waiting:
            self.moved.clear()
            # A job whose future is set has its place even before it resumes: it must not get a second one.
            waiting = {job: given for job, given in self._waiting.items() if not given.done()}
            if not hosts(host.settings):  # they may have been taken out of the settings while these jobs wait
                for job, given in waiting.items():
                    given.set_exception(FallBack("{stem}: no ECS host is set up; set ECS_HOSTS", stem=job.due[0].stem))
                waiting = {}
            async with failures.isolated(host, Text("the queue for ECS hosts"), LOOK_S, through=()):
                for job, place in (await host.write_tx(assign, host, list(waiting))).items():
                    if waiting[job].done():
                        continue
                    if place is None:
                        waiting[job].set_exception(NoLongerOurs(SETTLED))
                    else:
                        waiting[job].set_result(place)
            await comes(self.moved, LOOK_S)


QUEUE = HostQueue()


def assign(
    connection: Connection, host: TeacherHost, waiting: Sequence[TranscodeJob]
) -> dict[TranscodeJob, BegunJob | None]:
    """Give each free place to the first in the queue; None for a job that need not wait any more.

    While all hosts are put aside, as one that is started again is, a job waits as long as its first class has time.
    """
    now, settings = time.time(), host.settings
    known = hosts(settings)
    owners = sorted({job.owner for job in waiting})
    transcodings.kept_waiting(connection, owners, now + LEASE_S, now)
    facts = {row.name: row for row in transcodings.host_facts(connection, list(known))}
    # One that comes back later was put aside before the clock was set back, or by an older setting.
    is_back_soon = any(row.aside_until <= now + settings.ecs_cooldown_s for row in facts.values())
    assigned: dict[TranscodeJob, BegunJob | None] = {}
    starts, earlier = transcodings.first_starts(connection), math.inf
    if settings.shared:
        since = now + LEASE_S - YIELD_S
        earlier = decide.first_start(transcodings.waiting_elsewhere(connection, owners, since), starts)
    for job in sorted(waiting, key=lambda job: decide.first_start(job.keys, starts)):
        due = transcodings.ours(connection, job.due, job.owner)
        if not due:
            assigned[job] = None
            continue
        job.due, first = due, decide.first_start(job.keys, starts)
        if decide.waits(settings.windows, first, settings.ready_before_s, now):
            continue
        may_wait = is_back_soon and decide.has_time(first, settings.ready_before_s, now)
        chosen = decide.host_for(facts.values(), settings.max_ecs_jobs, job.avoid, now, may_wait=may_wait)
        if chosen is None:
            job.yields_until = None
            continue  # another job may avoid other hosts
        if earlier < first and job.yields(now):
            continue
        assigned[job] = begun = BegunJob(chosen, remote_job(settings, due).name, now)
        job.settings = settings
        transcodings.attach(connection, due, job.owner, begun)
        facts[chosen] = dataclasses.replace(facts[chosen], jobs=facts[chosen].jobs + 1)
        on = Text("on {host}", host=chosen)
        if len(due) > 1:
            on = Text("on {host} in one job of {n}", host=chosen, n=len(due))
        details = dict.fromkeys((rendition.stem for rendition in due), on)
        note(connection, host, msgid("ECS transcoding begins"), details, now)
    return assigned
