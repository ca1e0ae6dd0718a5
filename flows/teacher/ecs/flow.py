"""Our own ffmpeg servers at work: a ladder of hosts, a lease on the renditions, a result for each."""

import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.host import Teacher, all_of, log
from flows.teacher.ecs import attempt
from flows.teacher.ecs.ladder import Making
from flows.teacher.ecs.line import LEASE_S, hosts
from lectern.decide.transcode import UNKNOWN_LIMIT_S
from lectern.effects.files import origin
from lectern.effects.rows import renditions, transcodings
from lectern.effects.rows.transcodings import Due
from lectern.errors import LecternError
from lectern.places import PUBLIC, Places
from lectern.settings import TeacherSettings
from lectern.shown import shown
from lectern.states import Resolution

DEADLINE_S = UNKNOWN_LIMIT_S
"""Seconds within which a run must take it up, and renew that while it waits for a host; then the attempt's own limit
counts."""


def check(settings: TeacherSettings) -> None:
    """Raise Misuse if ECS hosts are named, but settings that they need are not."""
    if not settings.ecs_hosts:
        return
    hosts(settings)
    settings.refuse_half_ecs()
    attempt.target(settings)
    Places.listed(settings.allowed_origins)


async def work(host: Teacher, record_id: int, wanted: Sequence[Resolution], owner: str, *, again: bool) -> State[None]:
    """Make those of *wanted* that nobody else makes, publish each result, and wait for those that another run makes.

    *again*: a person retries the run, so what failed is attempted once more.
    """
    now, keys = time.time(), [(record_id, one) for one in wanted]
    if again:
        await host.commit(renditions.retry, keys, now + DEADLINE_S, now)
    due = await host.commit(transcodings.take, keys, owner, LEASE_S, now)
    theirs = await host.look(transcodings.elsewhere, keys, owner)
    left = await host.commit(transcodings.left_behind, keys)
    jobs: dict[tuple[str | None, str | None], list[Due]] = {}
    for rendition in due:
        under_way = rendition.ecs_job if rendition.begun_at is not None else None
        jobs.setdefault((under_way, rendition.source_url), []).append(rendition)
    making = [Making(host, together, owner).run() for together in jobs.values()]
    following = [Making(host, [one], owner).follow() for one in theirs]
    found = await all_of([*making, *following])
    await attempt.tidy(host, left)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    failures = [failure for one in found if not isinstance(one, BaseException) for failure in one]
    if failures:
        return Failed(message="; ".join(failures))
    made = ", ".join(rendition.stem for rendition in (*due, *theirs))
    return Completed(message=f"made {made}" if made else "nothing to do: settled already")


async def output_there(host: Teacher, one: Due) -> str | None:
    """The rendition's public URL, if a HEAD finds it there; None if that cannot be said."""
    base = host.settings.public_url
    if base is None:
        return None
    url = f"{base.rstrip('/')}/{one.record_id}/{one.stem}.flv"
    allowed = Places.listed(f"{url.split('/')[2]},public")
    try:
        await origin.look(url, allowed=allowed, timeout_s=host.settings.http_timeout_s)
    except LecternError as error:
        log.info("%s: not there after all: %s", one.stem, error.message)
        return None
    return url


async def gone(host: Teacher, url: str) -> bool:
    """Whether a HEAD says that nothing is at *url* any more; False if it cannot tell."""
    settings = host.settings
    ours = urlsplit(settings.public_url or "").netloc.rpartition("@")[2]
    try:
        allowed = Places.listed(f"{settings.allowed_origins or PUBLIC},{ours}")
        await origin.look(url, allowed=allowed, timeout_s=settings.http_timeout_s)
    except origin.Absent:
        return True
    except LecternError as error:
        log.info("%s: cannot be looked at, so it counts as being there: %s", shown(url), error.message)
    return False
