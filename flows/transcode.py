"""Renditions: requested of the OSS, settled by its results, timed out, made on an ECS host as the fallback."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from prefect import flow, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from prefect.tasks import exponential_backoff
from sqlalchemy import Connection

from flows import artifacts, ecs
from flows.begin import words
from flows.host import NOWHERE, log, teacher
from flows.outcome import Batch
from flows.retry import passing
from flows.settle import settle_now
from lectern.decide.breaker import Breaker
from lectern.effects import oss, renditions
from lectern.errors import FallBack, LecternError, TryAgain
from lectern.facts import RenditionKey
from lectern.messages import TranscodingResult
from lectern.settings import TeacherSettings
from lectern.states import Backend, RenditionState, Resolution
from lectern.stems import stem

# -- the request -------------------------------------------------------------------------------------------------------


POSTS_AT_ONCE = 16


class _Door:
    """The way to the OSS transcoder; while its API is down, our own servers are asked at once."""

    def __init__(self) -> None:
        self.breaker = Breaker()
        self.at_once = asyncio.Semaphore(POSTS_AT_ONCE)

    @asynccontextmanager
    async def passed(self, settings: TeacherSettings, thing: str) -> AsyncIterator[None]:
        """Around one request; raises FallBack where it is not to be made."""
        async with self.at_once:
            now = time.time()
            if settings.ecs_hosts and not self.breaker.lets(now):
                raise FallBack(f"{thing}: the OSS API failed {self.breaker.failures} times in a row, it is left alone")
            self.breaker = self.breaker.asked(now)
            try:
                yield
            except TryAgain:
                self.breaker = self.breaker.failed(time.time())
                if not self.breaker.lets(time.time()):
                    pause_s = self.breaker.closed_until - time.time()
                    log.warning("OSS transcoding: down, it is left alone for %.0f s; ECS takes over", pause_s)
                raise
            except FallBack:  # a no is an answer, too
                self.breaker = Breaker()
                raise
            self.breaker = Breaker()


_door = _Door()


@task(
    name="post",
    task_run_name="post {record_id} {resolution}",
    cache_policy=NO_CACHE,
    persist_result=False,
    result_storage=NOWHERE,
    retries=3,
    retry_delay_seconds=exponential_backoff(1),
    retry_jitter_factor=0.5,
    retry_condition_fn=passing,
)
async def post(record_id: int, resolution: str) -> None:
    """One signed POST to the OSS transcoder."""
    host = teacher()
    assert host.settings.oss_transcode_url is not None  # the decision asked for OSS only where it is set up
    async with _door.passed(host.settings, stem(record_id, Resolution(resolution))):
        await oss.request_transcoding(
            host.settings.oss_transcode_url,
            record_id,
            Resolution(resolution),
            host.settings.transcode_sign_key.get_secret_value(),
            timeout_s=host.settings.http_timeout_s,
        )
    now = time.time()
    deadline = now + host.settings.transcoding_time_out_s
    await host.commit(renditions.requested, (record_id, Resolution(resolution)), now, deadline)


@flow(name="request", persist_result=False, result_storage=NOWHERE)
async def request(renditions: list[tuple[int, str]], dry_run: bool = False) -> State[None]:
    """Ask the OSS for each rendition that is not asked for yet; where it will not, ask our own server."""
    host = teacher()
    keys = [(record_id, Resolution(resolution)) for record_id, resolution in renditions]
    open_ = await host.commit(_unasked, keys)
    if dry_run:
        return Completed(message=f"dry run: would ask for {', '.join(map(words, open_)) or 'nothing'}")
    asked = [post(record_id, str(resolution)) for record_id, resolution in open_]
    found = await asyncio.gather(*asked, return_exceptions=True)
    refused = [(key, one) for key, one in zip(open_, found, strict=True) if isinstance(one, LecternError)]
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, LecternError):
            raise one
    batch = Batch()
    for key, error in refused:
        result = TranscodingResult(
            record_id=key[0], video_resolution=key[1], result="failed", type=Backend.OSS, message=error.message
        )
        await settle_now(host, result, batch)
        batch.row(stem(*key), "OSS refused", detail=error.message)
    await artifacts.table("request-batch", batch.table, "What the OSS would not do")
    if refused:
        return Failed(message=f"{len(refused)} of {len(open_)} requests failed; the fallback takes over")
    return Completed(message=f"{len(open_)} asked for")


def _unasked(connection: Connection, keys: Sequence[RenditionKey]) -> list[RenditionKey]:
    rows = renditions.underway(connection, keys)
    asked = renditions.asked(connection, keys)
    transcoding = [key for key, row in rows.items() if row.state is RenditionState.TRANSCODING]
    return [key for key in transcoding if rows[key].backend is Backend.OSS and key not in asked]


# -- the fallback ------------------------------------------------------------------------------------------------------


@flow(name="transcode", persist_result=False, result_storage=NOWHERE)
async def transcode(record_id: int, resolutions: list[str], dry_run: bool = False) -> State[None]:
    """Make renditions of one record on an ECS host, and publish each result."""
    host = teacher()
    wanted = [Resolution(one) for one in resolutions]
    owner = str(runtime.flow_run.id)
    retried = int(runtime.flow_run.run_count or 1) > 1
    if dry_run:
        return Completed(message=f"dry run: would make {', '.join(wanted)} of {record_id} on {host.settings.ecs_hosts}")
    return await ecs.work(host, record_id, wanted, owner, again=retried)
