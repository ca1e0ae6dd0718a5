"""Our own ffmpeg servers at work: a ladder of hosts, a lease on the renditions, a result for each."""

import asyncio
import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from sqlalchemy import Connection

from flows import ecs_work
from flows.ecs_line import LEASE_S, NoLongerOurs, Place, hosts
from flows.ecs_work import LINE
from flows.host import all_of, log, tell
from flows.outcome import Teacher
from lectern.decide import ecs as decide
from lectern.decide.transcode import UNKNOWN_LIMIT_S
from lectern.effects import bookings, ecs_hosts, events, origin, outbox, process, renditions
from lectern.effects.events import Event
from lectern.effects.origin import Allowed
from lectern.effects.outbox import Kind, Outgoing
from lectern.effects.renditions import Due
from lectern.effects.ssh import Host, Lost
from lectern.errors import CANCELLED, HOST_ASIDE, TRANSCODE_FAILED, LecternError, Misuse, Refuse
from lectern.facts import EcsHost
from lectern.messages import TranscodingResult
from lectern.settings import TeacherSettings
from lectern.states import Backend, Resolution

DEADLINE_S = UNKNOWN_LIMIT_S
"""Until a host begins; then the attempt's own limit counts."""

_NONE: Mapping[Resolution, str] = MappingProxyType({})


def check(settings: TeacherSettings) -> None:
    """Raise Misuse where ECS hosts are named, and what they need is not."""
    if not settings.ecs_hosts:
        return
    hosts(settings)
    needed = {
        "ECS_SSH_KEY": settings.ecs_ssh_key,
        "ECS_KNOWN_HOSTS": settings.ecs_known_hosts,
        "UPLOAD_URL": settings.upload_url,
        "PUBLIC_URL": settings.public_url,
    }
    missing = [name for name, value in needed.items() if not value]
    if missing:
        raise Misuse(f"ECS_HOSTS is set, so {', '.join(missing)} must be set too.")
    ecs_work.target(settings)
    Allowed.parse(settings.allowed_origins)


async def work(host: Teacher, record_id: int, wanted: Sequence[Resolution], owner: str, *, again: bool) -> State[None]:
    """Make those of *wanted* that are to be made here and that nobody else makes; publish each result."""
    now = time.time()
    if again:
        await host.commit(renditions.retry, [(record_id, one) for one in wanted], now + DEADLINE_S, now)
    due = await host.commit(renditions.take, record_id, wanted, owner, LEASE_S, now)
    left = await host.commit(renditions.left_behind, record_id, wanted)
    jobs: dict[str, list[Due]] = {}
    for rendition in due:
        under_way = rendition.ecs_job if rendition.begun_at is not None else None
        jobs.setdefault(under_way or "", []).append(rendition)
    found = await all_of([_make(host, together, owner) for together in jobs.values()])
    await ecs_work.tidy(host, left)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    failures = [one for one in found if isinstance(one, str)]
    if failures:
        return Failed(message="; ".join(failures))
    made = ", ".join(rendition.stem for rendition in due)
    return Completed(message=f"made {made}" if made else "nothing to do: settled already, or another run is at it")


async def _make(host: Teacher, due: Sequence[Due], owner: str) -> str | None:
    """Make *due* in one run of ffmpeg, and publish how it went; returns why it failed."""
    left: set[Host] = set()
    try:
        failure = await _climb(host, due, owner, left)
    except NoLongerOurs as why:
        log.info("%s: %s", due[0].stem, why)
        return None
    except asyncio.CancelledError:
        if not host.runs.draining():
            await process.surely(_put(host, due, owner, error=Refuse("cancelled in the UI", CANCELLED)))
        raise
    if failure is not None:
        await _put(host, due, owner, error=failure)
    for where in left:  # those that could not be reached
        await ecs_work.leave_anew(host, where, ecs_work.job(host.settings, due).name)
    return failure.message if failure is not None else None


async def _climb(host: Teacher, due: Sequence[Due], owner: str, left: set[Host]) -> LecternError | None:
    """Try host after host, as often as it is worth it; returns why none could do it.

    Hosts on which something may go on, because they can not be reached, are added to *left*.
    """
    avoid: list[str] = []
    wanted = await host.commit(ecs_work.wanted, due)
    for tries in range(1, decide.TRIES + 1):
        try:
            job = ecs_work.job(host.settings, due)
            place = await LINE.place(host, due, owner, job.name, avoid)
        except LecternError as error:
            return error
        try:
            job = dataclasses.replace(job, begun_at=place.begun_at)
            attempt = ecs_work.Attempt(host, place, due, owner, job, wanted=wanted)
            await attempt.run(partial(_put, host, due, owner, place))
        except LecternError as error:
            if not await _again(host, due, owner, place, error, tries):
                return error
            avoid.append(str(place.host))
            if isinstance(error, Lost):
                left.add(place.host)
        else:
            left.discard(place.host)
            return None
        finally:
            LINE.left()
        await ecs_work.pause(tries)
    raise AssertionError("the last try is not tried again")


async def _again(host: Teacher, due: Sequence[Due], owner: str, place: Place, error: LecternError, tries: int) -> bool:
    log.warning("%s: ECS host %s: %s", due[0].stem, place.host, error.message)
    await host.commit(_note_failure, host, str(place.host), due, owner, error)
    await tell(host)
    return decide.again(error, tries)


def _note_failure(
    connection: Connection, host: Teacher, name: str, due: Sequence[Due], owner: str, error: LecternError
) -> None:
    now = time.time()
    ecs_hosts.given_up(connection, due, owner)
    noted = [Event("ECS host failed", stem=one.stem, detail=f"{name}: {error.message}") for one in due]
    events.note(connection, host.journal, host.settings.name, noted, now)
    if decide.blame(error) is not decide.Blame.HOST:
        return
    (before,) = ecs_hosts.facts(connection, [name])
    after = decide.after_failure(before, now, host.settings.ecs_aside_s)
    ecs_hosts.remember(connection, after, error.message, now)
    if after.aside_until > before.aside_until:
        for_s = host.settings.ecs_aside_s
        said = f"{name}: failed {after.failures} times in a row, it gets no job for {for_s:.0f} s: {error.message}"
        cry = bookings.alarm(HOST_ASIDE, said, now, host.settings.name)
        outbox.put(connection, host.journal, [host.alarm(cry)], now)


# -- the results -------------------------------------------------------------------------------------------------------


async def _put(
    host: Teacher,
    due: Sequence[Due],
    owner: str,
    place: Place | None = None,
    made: Mapping[Resolution, str] = _NONE,
    *,
    error: LecternError | None = None,
) -> None:
    """Publish what was made at *place*, or why nothing was."""
    await host.commit(_put_results, host, due, owner, place, made, error)
    await tell(host)


def _put_results(
    connection: Connection,
    host: Teacher,
    due: Sequence[Due],
    owner: str,
    place: Place | None,
    made: Mapping[Resolution, str],
    error: LecternError | None,
) -> None:
    """A result for each rendition, once; none where they are no longer ours."""
    if not ecs_hosts.published(connection, due, owner):
        log.info("%s: settled or taken over meanwhile; our result does not count", due[0].stem)
        return
    now = time.time()
    results = [
        TranscodingResult(
            record_id=one.record_id,
            video_resolution=one.resolution,
            result="failed" if error else "sucess",
            transcode_video_url=made.get(one.resolution),
            type=Backend.ECS,
            attempt=one.attempt,
            code=(error.code or TRANSCODE_FAILED).number if error else None,
            message=error.message if error else None,
        )
        for one in due
    ]
    sending = [Outgoing(host.settings.transcoding_channel, Kind.STREAM, result) for result in results]
    outbox.put(connection, host.journal, sending, now)
    why = f"{(error.code or TRANSCODE_FAILED).number}: {error.message}" if error else ""
    noted = [Event("ECS transcoding ended", stem=one.stem, detail=why or made[one.resolution]) for one in due]
    events.note(connection, host.journal, host.settings.name, noted, now)
    if place is not None:
        ecs_hosts.remember(connection, EcsHost(str(place.host)), None, now)


async def output_there(host: Teacher, one: Due) -> str | None:
    """The rendition's public URL, if a HEAD finds it there; None where that can not be said."""
    base = host.settings.public_url
    if base is None:
        return None
    url = f"{base.rstrip('/')}/{one.record_id}/{one.stem}.flv"
    allowed = Allowed.parse(f"{url.split('/')[2]},public")
    try:
        await origin.look(url, allowed=allowed, timeout_s=host.settings.http_timeout_s)
    except LecternError as error:
        log.info("%s: not there after all: %s", one.stem, error.message)
        return None
    return url
