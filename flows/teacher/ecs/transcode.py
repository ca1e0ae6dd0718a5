"""Transcodes on our own ffmpeg servers, host after host, under a lease; publishes a result for each rendition."""

import asyncio
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from sqlalchemy import Connection

from flows.host import TeacherHost, log
from flows.teacher.ecs.job import LEASE_S, TranscodeJob, hosts, leave, target
from lectern.allowlist import PUBLIC, Allowlist
from lectern.db import events, transcodings
from lectern.decide.transcoding import UNKNOWN_LIMIT_S
from lectern.errors import LecternError
from lectern.i18n import Text
from lectern.model.facts import Event, RenditionKey
from lectern.model.tables.teacher import RenditionRow
from lectern.rendition_ids import stem
from lectern.settings import TeacherSettings
from lectern.states import Resolution
from lectern.storage import origin
from lectern.urls import redact_url

DEADLINE_S = UNKNOWN_LIMIT_S
"""Seconds within which a run must take an attempt up; renewed while it waits for a host. Then the attempt's own limit
counts."""


def check(settings: TeacherSettings) -> None:
    """Raise Misuse if ECS hosts are named, but settings that they need are not."""
    if not settings.ecs_hosts:
        return
    hosts(settings)
    settings.refuse_half_ecs()
    target(settings)
    Allowlist.listed(settings.allowed_origins)


async def work(
    host: TeacherHost, record_id: int, wanted: Sequence[Resolution], owner: str, *, again: bool
) -> State[None]:
    """Make those of *wanted* that no other run makes, and publish each result.

    *again*: a person retries the run, so what failed is attempted once more.
    """
    now, keys = time.time(), [(record_id, resolution) for resolution in wanted]
    if again:
        await host.write_tx(_retried, host, keys, now)
    due = await host.write_tx(transcodings.take, keys, owner, LEASE_S, now)
    others = await host.read_tx(transcodings.others, keys, owner, now)
    left = await host.write_tx(transcodings.left_behind, keys)
    jobs: dict[tuple[str | None, str | None], list[RenditionRow]] = {}
    for rendition in due:
        under_way = rendition.ecs_job if rendition.begun_at is not None else None
        jobs.setdefault((under_way, rendition.source_url), []).append(rendition)
    outcomes = await asyncio.gather(
        *(TranscodeJob(host, together, owner).run() for together in jobs.values()), return_exceptions=True
    )
    for where, name in {(row.ecs_host or "", row.ecs_job or "") for row in left}:  # of runs that were killed
        if where in hosts(host.settings):
            await leave(host, host.settings, where, name)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    failures = [failure for outcome in outcomes if not isinstance(outcome, BaseException) for failure in outcome]
    if failures:
        return Failed(message="; ".join(failures))
    done = [f"made {', '.join(rendition.stem for rendition in due)}"] if due else []
    done += [f"the run {other} makes {'the rest' if due else 'them'}" for other in others]
    return Completed(message="; ".join(done) or "nothing to do: settled already")


def _retried(connection: Connection, host: TeacherHost, keys: Sequence[RenditionKey], now: float) -> None:
    """Attempt *keys* once more; Prefect knows no users, so the event names Prefect."""
    transcodings.retry(connection, keys, now + DEADLINE_S, now)
    noted = [Event("retried", stem=stem(*key), detail=Text("by {who}", who="Prefect")) for key in keys]
    events.note(connection, host.journal, host.settings.name, noted, now)


async def output_there(host: TeacherHost, row: RenditionRow) -> str | None:
    """The rendition's public URL, if a HEAD finds it there; None if that cannot be said."""
    base = host.settings.public_url
    if base is None:
        return None
    url = f"{base.rstrip('/')}/{row.record_id}/{row.stem}.flv"
    allowed = Allowlist.listed(f"{url.split('/')[2]},public")
    try:
        await origin.look(url, allowed=allowed, timeout_s=host.settings.http_timeout_s)
    except LecternError as error:
        log.info("%s: not there after all: %s", row.stem, error.message)
        return None
    return url


async def gone(host: TeacherHost, url: str) -> bool:
    """Whether a HEAD says that nothing is at *url* any more; False if it cannot tell."""
    settings = host.settings
    ours = urlsplit(settings.public_url or "").netloc.rpartition("@")[2]
    try:
        allowed = Allowlist.listed(f"{settings.allowed_origins or PUBLIC},{ours}")
        await origin.look(url, allowed=allowed, timeout_s=settings.http_timeout_s)
    except origin.Absent:
        return True
    except LecternError as error:
        log.info("%s: cannot be looked at, so it counts as being there: %s", redact_url(url), error.message)
    return False
