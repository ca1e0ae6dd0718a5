"""Requests renditions from the OSS, and makes renditions on an ECS host as the fallback."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import stamina
from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows import show
from flows.host import NOWHERE, Teacher, log, teacher
from flows.prefect_api import is_retried
from flows.teacher.attempts import words
from flows.teacher.ecs import flow as ecs
from flows.teacher.results import settle_now
from flows.tell import tell
from lectern import errors
from lectern.decide.breaker import Breaker
from lectern.effects.files import oss
from lectern.effects.rows import incidents, oss_requests, outbox
from lectern.errors import FallBack, LecternError, TryAgain
from lectern.facts import RenditionKey
from lectern.messages import TranscodingResult
from lectern.settings import TeacherSettings
from lectern.states import Backend, Resolution
from lectern.stems import stem

# -- the request -------------------------------------------------------------------------------------------------------


POSTS, POSTS_AT_ONCE = 4, 16
SAY_AGAIN_S = 60.0
"""Seconds until the same alarm about the OSS may be raised again."""

LEASE_S = 60.0
"""Seconds for which a run owns its requests, renewed while it lives: another run takes over only after its end."""


class _Door:
    """Lets requests through to the OSS transcoder; while its API is down, they fall back to our own servers at once."""

    def __init__(self) -> None:
        self.breaker = Breaker()
        self.why = ""
        """What went wrong with the last request."""
        self.at_once = asyncio.Semaphore(POSTS_AT_ONCE)

    @asynccontextmanager
    async def passed(self, settings: TeacherSettings, thing: str) -> AsyncIterator[None]:
        """A context around one request; raises FallBack if the request must not be made."""
        now = time.time()
        if settings.ecs_hosts and not self.breaker.lets(now):
            often = f"failed {self.breaker.failures} times in a row, the last time because: {self.why}"
            raise FallBack(f"{thing}: the OSS API {often}; it is left alone")
        self.breaker = self.breaker.asked(now)
        try:
            yield
        except TryAgain as error:
            self.breaker, self.why = self.breaker.failed(time.time()), error.message
            if not self.breaker.lets(time.time()):
                pause_s = self.breaker.closed_until - time.time()
                log.warning("OSS transcoding: down, it is left alone for %.0f s; ECS takes over: %s", pause_s, self.why)
            raise
        except FallBack:  # a refusal is an answer, too
            self.breaker = Breaker()
            raise
        self.breaker = Breaker()


_door = _Door()


async def _ask(host: Teacher, key: RenditionKey, attempt: int, owner: str) -> None:
    """Ask until the OSS has answered; the pauses between the tries double."""
    async for trying in stamina.retry_context(
        on=TryAgain, attempts=POSTS, timeout=None, wait_initial=1.0, wait_max=8.0
    ):
        with trying:
            await _post(host, key, attempt, owner)


async def _post(host: Teacher, key: RenditionKey, attempt: int, owner: str) -> None:
    """One signed POST to the OSS transcoder, if the rendition is still *owner*'s to ask for when its turn comes."""
    if host.settings.oss_transcode_url is None:  # it was set when the request was decided
        raise FallBack(f"{stem(*key)}: OSS transcoding: OSS_TRANSCODE_URL is not set any more")
    async with _door.at_once:
        if not await host.commit(oss_requests.may_ask, key, attempt, owner, time.time() + LEASE_S):
            log.info("%s: is asked for by another run, or is settled", stem(*key))
            return
        async with _said_if_refused(host), _door.passed(host.settings, stem(*key)):
            await oss.request_transcoding(
                host.settings.oss_transcode_url,
                *key,
                host.settings.transcode_sign_key.get_secret_value(),
                timeout_s=host.settings.http_timeout_s,
            )
    now = time.time()
    deadline = now + host.settings.transcoding_time_out_s
    if not await host.commit(oss_requests.asked, key, attempt, now, deadline):
        log.info("%s: the OSS took the request late, its attempt is over", stem(*key))


@asynccontextmanager
async def _said_if_refused(host: Teacher) -> AsyncIterator[None]:
    """A context around one request: raises an alarm if the OSS does not know this teacher, which the fallback hides.

    The trouble goes on until a request is taken.
    """
    code = errors.OSS_REFUSES
    try:
        yield
    except FallBack as error:
        if error.code is not code:
            raise
        host.ongoing[code.number] = math.inf
        if host.alarmed_at.take(code.meaning, SAY_AGAIN_S):
            alarm = host.alarm(code, error.message, time.time())
            await host.commit(outbox.put, host.journal, [alarm], time.time())
            await tell(host)
        raise
    host.ongoing.pop(code.number, None)


async def remember(host: Teacher) -> None:
    """Take over from the process before that the OSS refuses this teacher, which goes on until it takes a request."""
    code = errors.OSS_REFUSES.number
    is_told = await host.look(incidents.open_of, host.journal, code) is not None
    if is_told and host.settings.oss_transcode_url is not None:
        host.ongoing[code] = math.inf


@flow(name="request", persist_result=False, result_storage=NOWHERE)
async def request(renditions: list[tuple[int, str]], dry_run: bool = False) -> State[None]:
    """Ask the OSS for each rendition that nobody asks for yet; if it will not, ask our own server."""
    host = teacher()
    owner = oss_requests.owned_by(host.settings.name, run_id())
    keys = [(record_id, Resolution(resolution)) for record_id, resolution in renditions]
    if dry_run:
        open_ = await host.look(oss_requests.open_among, keys, owner, time.time())
        return Completed(message=f"dry run: would ask for {', '.join(words(key) for key, _ in open_) or 'nothing'}")
    taken = await host.commit(oss_requests.take, keys, owner, LEASE_S, time.time())
    async with _kept(host, owner):
        asked = [_ask(host, key, attempt, owner) for key, attempt in taken]
        found = await asyncio.gather(*asked, return_exceptions=True)
    refused = [(one, error) for one, error in zip(taken, found, strict=True) if isinstance(error, LecternError)]
    for error in found:
        if isinstance(error, BaseException) and not isinstance(error, LecternError):
            raise error
    rows: list[dict[str, object]] = []
    for (key, attempt), error in refused:
        result = TranscodingResult(
            record_id=key[0],
            video_resolution=key[1],
            result="failed",
            type=Backend.OSS,
            attempt=attempt,
            message=error.message,
        )
        settled = await settle_now(host, result)
        settled.row(stem(*key), "OSS refused", detail=error.message)
        rows += settled.table
    await show.table("request-batch", rows, "What the OSS would not do")
    if refused:
        return Failed(message=f"{len(refused)} of {len(taken)} requests failed; the fallback takes over")
    return Completed(message=f"{len(taken)} asked for")


def run_id() -> str:
    """The owner of renditions that are taken: the id of the current run, or a new id if there is none."""
    return str(runtime.flow_run.id or uuid4())


@asynccontextmanager
async def _kept(host: Teacher, owner: str) -> AsyncIterator[None]:
    """Renew the leases of all requests that *owner* has yet to make, however many they are."""

    async def keep() -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            await host.commit(oss_requests.keep, owner, LEASE_S, time.time())

    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


# -- the fallback ------------------------------------------------------------------------------------------------------


@flow(name="transcode", persist_result=False, result_storage=NOWHERE)
async def transcode(record_id: int, resolutions: list[str], dry_run: bool = False) -> State[None]:
    """Make renditions of one record on an ECS host, and publish each result."""
    host = teacher()
    wanted = [Resolution(one) for one in resolutions]
    owner = run_id()
    if dry_run:
        return Completed(message=f"dry run: would make {', '.join(wanted)} of {record_id} on {host.settings.ecs_hosts}")
    again = int(runtime.flow_run.run_count or 1) > 1 and await is_retried(UUID(owner))
    return await ecs.work(host, record_id, wanted, owner, again=again)
