"""Our own ffmpeg servers at work: a ladder of hosts, a lease on the renditions, a result for each."""

import asyncio
import itertools
import time
from collections.abc import Sequence

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from sqlalchemy import Connection

from flows import artifacts
from flows.host import log, tell
from flows.outcome import Teacher
from lectern.effects import ecs, events, origin, outbox, renditions, ssh
from lectern.effects.events import Event
from lectern.effects.origin import Allowed
from lectern.effects.outbox import Kind, Outgoing
from lectern.effects.renditions import Due
from lectern.errors import LecternError, Misuse, Refuse
from lectern.messages import TranscodingResult
from lectern.settings import TeacherSettings
from lectern.states import Backend, Resolution

LEASE_S = 60.0
RENEW_S = 10.0
DEADLINE_S = 3600.0
"""Until the duration is known; the transcoding itself is bounded by the total limit and the stall watchdog."""

CONNECT_S = 15.0
_turn = itertools.count()


def hosts(settings: TeacherSettings) -> list[ssh.Host]:
    """The ladder: each job begins one host further."""
    listed = [ssh.Host.parse(text) for text in settings.ecs_hosts.split(",") if text.strip()]
    first = next(_turn) % len(listed) if listed else 0
    return listed[first:] + listed[:first]


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
    if settings.upload_url and settings.upload_url.startswith("oss://"):
        raise Misuse(f"UPLOAD_URL={settings.upload_url}: only http:// and https:// PUT bases can be used so far.")


async def work(host: Teacher, record_id: int, wanted: Sequence[Resolution], owner: str, *, again: bool) -> State[None]:
    """Make those of *wanted* that are to be made here and that nobody else makes; publish each result."""
    if again:
        now = time.time()
        await host.commit(renditions.retry, [(record_id, one) for one in wanted], now + DEADLINE_S, now)
    async with host.slots:
        due = await host.commit(renditions.take, record_id, wanted, owner, LEASE_S, time.time())
        if not due:
            return Completed(message="nothing to do: settled already, or another run is at it")
        keeper = asyncio.create_task(_keep(host, due, owner))
        try:
            made, failure = await _climb(host, due)
        finally:
            keeper.cancel()
            await asyncio.wait({keeper})
    await host.commit(_publish, host, due, made, failure)
    await tell(host)
    if failure is not None:
        return Failed(message=failure)
    return Completed(message=f"made {', '.join(one.stem for one in due)}")


async def _keep(host: Teacher, due: Sequence[Due], owner: str) -> None:
    while True:
        await asyncio.sleep(RENEW_S)
        if not await host.commit(renditions.renew, due, owner, time.time() + LEASE_S, None):
            log.warning("%s: its lease is lost; the result will not count", due[0].stem)
            return


async def _climb(host: Teacher, due: Sequence[Due]) -> tuple[dict[Resolution, str], str | None]:
    """Try host after host; a bad recording is bad everywhere."""
    tried: list[str] = []
    name = f"{due[0].record_id} {'+'.join(one.resolution for one in due)}"
    for where in hosts(host.settings):
        try:
            async with artifacts.Progress(f"transcode-{due[0].record_id}", f"transcode {name} on {where.name}") as bar:
                return await _on(host, where, due, bar), None
        except Refuse as error:
            return {}, error.message
        except LecternError as error:
            log.warning("%s: ECS host %s: %s", name, where, error.message)
            tried.append(error.message)
    return {}, "; ".join(tried) or "no ECS host is set up"


async def _on(host: Teacher, where: ssh.Host, due: Sequence[Due], bar: artifacts.Progress) -> dict[Resolution, str]:
    settings = host.settings
    if not (settings.ecs_ssh_key and settings.ecs_known_hosts and settings.upload_url and settings.public_url):
        raise Misuse("ECS_SSH_KEY, ECS_KNOWN_HOSTS, UPLOAD_URL and PUBLIC_URL must be set for ECS transcoding.")
    job = ecs.Job(
        record_id=due[0].record_id,
        attempt=due[0].attempt,
        source_url=due[0].source_url or "",
        wanted=tuple(one.resolution for one in due),
        upload_base=f"{settings.upload_url.rstrip('/')}/{due[0].record_id}",
        public_base=f"{settings.public_url.rstrip('/')}/{due[0].record_id}",
        work_root=settings.ecs_work_root,
        programs=ecs.Programs(settings.ecs_wget, settings.ecs_ffmpeg, settings.ecs_ffprobe, settings.ecs_curl),
    )
    async with ssh.connect(where, settings.ecs_ssh_key, settings.ecs_known_hosts, timeout_s=CONNECT_S) as connection:
        made = await ecs.transcode(connection, job, on_progress=bar.set)
    bar.set(100)
    return {one.resolution: one.url for one in made}


def _publish(
    connection: Connection, host: Teacher, due: Sequence[Due], made: dict[Resolution, str], failure: str | None
) -> None:
    now = time.time()
    results = [
        TranscodingResult(
            record_id=one.record_id,
            video_resolution=one.resolution,
            result="failed" if failure else "sucess",
            transcode_video_url=made.get(one.resolution),
            type=Backend.ECS,
            attempt=one.attempt,
            message=failure,
        )
        for one in due
    ]
    sending = [Outgoing(host.settings.transcoding_channel, Kind.STREAM, result) for result in results]
    outbox.put(connection, host.journal, sending, now)
    noted = [Event("ECS transcoding ended", stem=one.stem, detail=failure or made[one.resolution]) for one in due]
    events.note(connection, host.journal, host.settings.name, noted, now)


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
