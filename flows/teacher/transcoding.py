"""Has renditions made by the OSS or, as the fallback, on an ECS host; settles results and passed deadlines."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from uuid import UUID, uuid4

import stamina
from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from flows import artifacts
from flows.failures import raised, words
from flows.handling import apart, batch_flow, changed, decision, read
from flows.host import NOWHERE, TeacherHost, current, log
from flows.outbox_publisher import publish_outbox
from flows.prefect_api import NewRun, cancelled_runs, is_retried
from flows.teacher.ecs.job import LEASE_S, TranscodeJob, leave, note, result_of
from flows.teacher.membership import alive_streamers
from lectern import errors, metrics
from lectern.allowlist import Allowlist
from lectern.db import bookings, inbox, incidents, transcodings
from lectern.decide import transcoding
from lectern.decide.transcoding import Waiters, by_record
from lectern.ecs.transcode import hosts
from lectern.errors import Caught, FallBack, LecternError, TryAgain
from lectern.i18n import Text, msgid
from lectern.model.facts import RenditionKey
from lectern.model.plan import Changes
from lectern.model.tables.teacher import RenditionRow
from lectern.rendition_ids import stem
from lectern.states import Backend, Resolution
from lectern.storage import origin, oss
from lectern.timing import shielded
from lectern.urls import redact_url
from lectern.wire.fields import class_of, is_name
from lectern.wire.messages import TranscodingResult


async def start_requests(host: TeacherHost, keys: Sequence[RenditionKey]) -> None:
    """Begin a run that asks the OSS for each of *keys*; if it cannot begin, the sweeper does it."""
    if keys:
        name = "request {} {}".format(*keys[0]) if len(keys) == 1 else f"request {len(keys)} renditions"
        wanted = [[record_id, str(resolution)] for record_id, resolution in keys]
        tags = [f"record:{record_id}" for record_id, _ in keys[:20]]
        host.background.begin(host.runs, NewRun("request", {"renditions": wanted}, name, tags))


async def start_ecs(host: TeacherHost, keys: Sequence[RenditionKey]) -> None:
    """Begin a run for each record of *keys*: its renditions are made together."""
    for record_id, resolutions in by_record(keys).items():
        host.background.begin(host.runs, _ecs_run(record_id, resolutions))


async def ecs_run(host: TeacherHost, record_id: int, resolutions: Sequence[Resolution], attempt: int) -> str:
    """The id of the run that makes this attempt, begun now or by an earlier request."""
    run = _ecs_run(record_id, resolutions)
    return await host.runs.start(replace(run, key=f"{host.settings.name} {run.name} attempt {attempt}"))


def _ecs_run(record_id: int, resolutions: Sequence[Resolution]) -> NewRun:
    parameters = {"record_id": record_id, "resolutions": [str(resolution) for resolution in resolutions]}
    return NewRun("transcode", parameters, f"transcode {record_id} {'+'.join(resolutions)}", [f"record:{record_id}"])


Lists = Mapping[RenditionKey, list[str]]
"""The class_ids on the Redis waiting lists; the old program's are among them."""


@flow(name="settle", persist_result=False, result_storage=NOWHERE)
async def settle(inbox_ids: str, dry_run: bool = False) -> State[None]:
    """Settle the transcoding results of *inbox_ids*: waiting classes proceed or are refused."""
    batch = await read(current.get(), inbox_ids, (TranscodingResult,), dry_run=dry_run)
    alive = await alive_streamers(batch.host)
    results = [delivery.message for delivery in batch.came if isinstance(delivery.message, TranscodingResult)]
    lists = await old_waiters(batch.host, {result.key for result in results})
    go, after = partial(decided_results, alive, lists), partial(follow, lists=lists)
    return await batch_flow("settle", batch, go, after, "What became of each result and its classes")


def decided_results(
    alive: Sequence[str], lists: Lists, connection: Connection, changes: Changes, results: Sequence[TranscodingResult]
) -> None:
    """Decide what follows from transcoding results; the streamers *alive* can take classes."""
    rows = transcodings.states(connection, {result.key for result in results})
    waiters = waiters_of(connection, changes, rows, lists)
    loads = bookings.loads(connection, changes.now, alive)
    for result in results:
        waiting = waiters.get(result.key) or Waiters(strangers=_readable(result.key, lists))
        if transcoding.settle(changes, result, rows, waiting, loads) is transcoding.Outcome.IGNORE:
            log.info("%s: a late, doubled or older result changes nothing", result.stem)


def _readable(key: RenditionKey, lists: Lists) -> list[str]:
    """The class_ids on a waiting list, without revisions; other entries are logged, and deleted with the list."""
    listed = lists.get(key, ())
    if odd := sum(not is_name(class_of(name)) for name in listed):
        log.warning("redis: the waiting list of %s has %d entries that are no class_id", stem(*key), odd)
    return [name for name in listed if is_name(name)]


def waiters_of(
    connection: Connection, changes: Changes, keys: Iterable[RenditionKey], lists: Lists
) -> dict[RenditionKey, Waiters]:
    """Who waits for each of *keys*, in the database and on the lists; the classes of revisions are then known."""
    waiters: dict[RenditionKey, Waiters] = {}
    for key in keys:
        listed, orders = _readable(key, lists), bookings.waiting_for(connection, *key)
        booked = bookings.booked_among(connection, listed)
        waiters[key] = Waiters(orders, [class_id for class_id in listed if class_id not in booked])
        revised = [order.revises for order in orders if order.revises is not None]
        changes.learn(bookings.readable_among(connection, revised))
    return waiters


async def follow(host: TeacherHost, plans: Sequence[Changes], lists: Lists = MappingProxyType({})) -> None:
    """After the commit: send messages, keep the waiting lists, begin transcodings; drop the *lists* of ended ones."""
    for plan in plans:
        for backend, outcome in plan.transcoded:
            metrics.TRANSCODES.labels(backend, outcome).inc()
    await publish_outbox(host)
    if lists:
        await drop_lists(host, [key for plan in plans for key in plan.ended], lists)
    try:
        for plan in plans:
            if plan.joins:
                await host.bus.join_waiting(plan.joins)
            for waiting_key, class_id in plan.leaves:
                await host.bus.leave_waiting(waiting_key, class_id)
    except TryAgain as error:
        log.warning("redis: the waiting lists are behind the database: %s", error)
    begun = [(Backend.ECS, key) for plan in plans for key in plan.fell_back_to_ecs]
    begun += [(attempt.backend, (attempt.record_id, attempt.resolution)) for plan in plans for attempt in plan.begun]
    if begun:
        await start_requests(host, [key for backend, key in begun if backend is Backend.OSS])
        await start_ecs(host, [key for backend, key in begun if backend is Backend.ECS])


async def old_waiters(host: TeacherHost, keys: set[RenditionKey]) -> dict[RenditionKey, list[str]]:
    """The class_ids on the Redis waiting lists of *keys*; the old program's are among them."""
    names = {key: host.settings.waiting_key.format(record_id=key[0], resolution=key[1]) for key in keys}
    try:
        waiting = await host.bus.waiting(list(names.values()))
    except TryAgain as error:
        log.warning("redis: the waiting lists cannot be read: %s", error)
        return {key: [] for key in keys}
    return {key: waiting[name] for key, name in names.items()}


async def drop_lists(host: TeacherHost, keys: Sequence[RenditionKey], lists: Lists) -> None:
    """Delete the entries that were read from the waiting lists; classes that joined since stay."""
    name = host.settings.waiting_key.format
    counts = {name(record_id=key[0], resolution=key[1]): len(lists[key]) for key in keys if lists.get(key)}
    try:
        if counts:
            await host.bus.drop_waiting(counts)
    except TryAgain as error:
        log.warning("redis: drained waiting lists stay: %s", error)


# -- the request -------------------------------------------------------------------------------------------------------

POSTS, POSTS_AT_ONCE = 4, 16
THRESHOLD, PAUSE_S = 5, 60.0
"""Number of failures in a row after which the OSS is left alone where there is another way, and for how many seconds.
Then one request tries it out."""


class _Door:
    """Lets requests through to the OSS transcoder; while its API is down, they fall back to our own servers at once."""

    def __init__(self) -> None:
        self.failures = 0  # in a row
        self.closed_until = 0.0  # if there were too many, monotonic
        self.why = ""  # what went wrong with the last request
        self.at_once = asyncio.Semaphore(POSTS_AT_ONCE)
        self.waiting = 0  # requests that nobody has leased yet

    @contextmanager
    def waits(self) -> Iterator[None]:
        """A context around the wait of one request, until it is leased."""
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    @asynccontextmanager
    async def passed(self, host: TeacherHost, thing: str) -> AsyncIterator[None]:
        """A context around one request; raises FallBack if the request must not be made.

        Raises an alarm if the OSS does not know this teacher, which the fallback hides. The trouble goes on until a
        request is taken.
        """
        now, refused = time.monotonic(), errors.OSS_REFUSES
        if host.settings.ecs_hosts and self.failures >= THRESHOLD and now < self.closed_until:
            often = Text(
                "{thing}: the OSS API failed {failures} times in a row, the last time because: {why}; it is left alone",
                thing=thing,
                failures=self.failures,
                why=self.why,
            )
            raise FallBack(often)
        self.closed_until = now + PAUSE_S  # after a pause, this is the only request until its result is known
        try:
            yield
        except TryAgain as error:
            self.failures, self.why = self.failures + 1, error.message
            self.closed_until = time.monotonic() + PAUSE_S
            if self.failures >= THRESHOLD:
                log.warning("OSS transcoding: down, it is left alone for %.0f s; ECS takes over: %s", PAUSE_S, self.why)
            raise
        except FallBack as error:  # a refusal is an answer, too
            self.failures = 0
            if error.code is refused:
                host.ongoing[refused.number] = math.inf
                await raised(host, refused.meaning, refused, error.message, publish_outbox)
            raise
        self.failures = 0
        host.ongoing.pop(refused.number, None)


_door = _Door()


_again = stamina.AsyncRetryingCaller(attempts=POSTS, timeout=None, wait_initial=1.0, wait_max=8.0).on(
    (TryAgain, OperationalError)  # a process that stood still in a transaction has lost its session
)
"""Does something until it is done; the pauses between the tries double."""


def requests_wait() -> bool:
    """Whether requests wait for their turn here: those of a run are nobody's until then, but not forgotten."""
    return _door.waiting > 0


async def _post(host: TeacherHost, due: RenditionRow, owner: str) -> bool:
    """One signed POST to the OSS transcoder, if nobody but *owner* asks for the rendition when its turn comes.

    A cancel waits for the answer, at most http_timeout_s: the OSS is paid, so what it takes is not asked for again. Nor
    does a process that is about to end ask for more, which might be taken after its end.
    """
    if (url := host.settings.oss_transcode_url) is None:  # it was set when the request was decided
        raise FallBack("{stem}: OSS transcoding: OSS_TRANSCODE_URL is not set any more", stem=due.stem)
    async with AsyncExitStack() as turn:
        with _door.waits():
            await turn.enter_async_context(_door.at_once)
            lease_s = LEASE_S + host.settings.http_timeout_s
            wanted = due, owner, lease_s, time.time()
            if host.runs.draining() or not await host.write_tx(transcodings.take_request, *wanted):
                log.info("%s: is asked for by another run, or by the next process, or is settled", due.stem)
                return False
        await shielded(_asked(host, url, due))
    return True


async def _asked(host: TeacherHost, url: str, due: RenditionRow) -> None:
    async with _door.passed(host, due.stem):
        secret = host.settings.transcode_sign_key.get_secret_value()
        await oss.request_transcoding(url, *due.key, secret, timeout_s=host.settings.http_timeout_s)
    now = time.time()
    deadline = now + host.settings.transcoding_time_out_s
    if not await _again(host.write_tx, transcodings.note_requested, due, now, deadline):
        log.info("%s: the OSS took the request late, its attempt is over", due.stem)


async def remember(host: TeacherHost) -> None:
    """Take over from the process before that the OSS refuses this teacher, which goes on until it takes a request."""
    code = errors.OSS_REFUSES.number
    if await host.read_tx(incidents.open_of, code) is not None:
        host.ongoing[code] = math.inf


@flow(name="request", persist_result=False, result_storage=NOWHERE)
async def request(renditions: list[tuple[int, str]], dry_run: bool = False) -> State[None]:
    """Ask the OSS for each rendition that nobody asks for yet; if it will not, ask our own server."""
    host: TeacherHost = current.get()
    owner = transcodings.request_owner(host.settings.name, run_id())
    keys = [(record_id, Resolution(resolution)) for record_id, resolution in renditions]
    due = await _again(host.read_tx, transcodings.open_requests, keys, owner, time.time())
    if dry_run:
        named = ", ".join("{} {}".format(*one.key) for one in due)
        return Completed(message=f"dry run: would ask for {named or 'nothing'}")
    outcomes = await asyncio.gather(*(_again(_post, host, one, owner) for one in due), return_exceptions=True)
    for error in outcomes:
        if isinstance(error, BaseException) and not isinstance(error, LecternError):
            raise error
    refused = [(one, error) for one, error in zip(due, outcomes, strict=True) if isinstance(error, LecternError)]
    rows = [row for one, error in refused for row in await _refused(host, one, error)]
    await artifacts.table("request-batch", rows, "What the OSS would not do")
    if refused:
        return Failed(message=f"{len(refused)} of {len(due)} requests failed; the fallback takes over")
    return Completed(message=f"{outcomes.count(True)} asked for")


async def _refused(host: TeacherHost, due: RenditionRow, error: LecternError) -> list[dict[str, object]]:
    """Settle an attempt that the OSS would not make; returns what the run shows. Raises TryAgain if Redis is away."""
    alive, lists = await alive_streamers(host), await old_waiters(host, {due.key})
    result = result_of(due, Backend.OSS, error=error)
    settled = await changed(host, lambda c, changes: decided_results(alive, lists, c, changes, [result]))
    await follow(host, [settled], lists)
    settled.row(due.stem, "OSS refused", detail=error.message)
    return settled.table


def run_id() -> str:
    """The owner of renditions that are taken: the id of the current run, or a new id if there is none."""
    return str(runtime.flow_run.id or uuid4())


# -- the fallback ------------------------------------------------------------------------------------------------------
@flow(name="transcode", persist_result=False, result_storage=NOWHERE)
async def transcode(record_id: int, resolutions: list[str], dry_run: bool = False) -> State[None]:
    """Make renditions of one record on an ECS host, and publish each result."""
    host: TeacherHost = current.get()
    wanted = [Resolution(name) for name in resolutions]
    owner = run_id()
    if dry_run:
        return Completed(message=f"dry run: would make {', '.join(wanted)} of {record_id} on {host.settings.ecs_hosts}")
    again = int(runtime.flow_run.run_count or 1) > 1 and await is_retried(UUID(owner))
    return await work_on_ecs(host, record_id, wanted, owner, again=again)


RESULTS_FIRST_S = 60.0
"""Seconds after its deadline after which a transcoding is timed out even while unread results wait."""

LOOKS = 100
"""Number of outputs that are looked for at the same time: each holds a socket, and a process has about a thousand."""


def _overdue(connection: Connection, now: float) -> list[RenditionRow]:
    """The transcodings to time out; while unread results wait, one may be theirs, so only those long overdue."""
    due = transcodings.overdue(connection, now)
    unread = bool(due) and inbox.waits(connection, "transcoding")
    return [row for row in due if not unread or (row.deadline or now) < now - RESULTS_FIRST_S]


async def time_out(host: TeacherHost, *, dry_run: bool = False) -> list[Changes]:
    """Settle every transcoding whose deadline has passed; first look whether its output is there after all.

    Raises TryAgain while Redis is away: no answer could be sent, and no streamer chosen.
    """
    due = await host.read_tx(_overdue, time.time())
    if not due:
        return []
    alive = await alive_streamers(host)
    gate = asyncio.Semaphore(LOOKS)

    async def output(row: RenditionRow) -> str | None:
        async with gate:
            return await output_there(host, row)

    late = list(zip(due, await asyncio.gather(*map(output, due)), strict=True))
    lists = await old_waiters(host, {row.key for row in due})
    result = await apart(
        host, late, lambda batch: expired(batch, alive, lists), lambda its: str(its[0].key), dry_run=dry_run
    )
    if not dry_run:
        await follow(host, result.done, lists)
    return result.done


@decision
def expired(
    connection: Connection,
    changes: Changes,
    late: Sequence[tuple[RenditionRow, str | None]],
    alive: Sequence[str],
    lists: Lists,
) -> None:
    """Settle those of *late*, each with the URL of its output if that was found, that no result has settled since."""
    open_ = {row.key for row in _overdue(connection, changes.now)}  # a look may take as long as a result
    waiters = waiters_of(connection, changes, [row.key for row, _ in late if row.key in open_], lists)
    loads = bookings.loads(connection, changes.now, alive)
    for row, url in late:
        if row.key in open_:
            transcoding.expire(changes, row, url, waiters[row.key], loads)


# -- on our own ffmpeg servers -----------------------------------------------------------------------------------------
async def refuse_cancelled(host: TeacherHost, lost: Sequence[RenditionRow]) -> None:
    """Publish of those of *lost* whose runs a person cancelled while no process was at them that they are not made."""
    owners = sorted({row.owner for row in lost if row.owner is not None})
    for owner in await cancelled_runs(host.runs, owners):
        await TranscodeJob(host, [row for row in lost if row.owner == owner], owner).refuse()


async def work_on_ecs(
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
    working = [TranscodeJob(host, together, owner) for together in jobs.values()]
    outcomes = await asyncio.gather(*(job.run() for job in working), return_exceptions=True)
    for where, name in {(row.ecs_host or "", row.ecs_job or "") for row in left}:  # of runs that were killed
        if where in hosts(host.settings):
            await leave(host, host.settings, where, name)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    if failures := [why for job in working for why in job.failures]:
        return Failed(message="; ".join(failures))
    made = [rendition.stem for rendition in due if any(rendition.stem in job.made for job in working)]
    done = [f"made {', '.join(made)}"] if made else []
    done += [said for job in working for said in job.unmade]
    done += [f"the run {other} makes {'the rest' if due else 'them'}" for other in others]
    return Completed(message="; ".join(done) or "nothing to do: settled already")


def _retried(connection: Connection, host: TeacherHost, keys: Sequence[RenditionKey], now: float) -> None:
    """Attempt *keys* once more; Prefect knows no users, so the event names Prefect."""
    transcodings.retry(connection, keys, now)
    details = dict.fromkeys((stem(*key) for key in keys), Text("by {who}", who="Prefect"))
    note(connection, host, msgid("retried"), details, now)


async def output_there(host: TeacherHost, row: RenditionRow) -> str | None:
    """The rendition's public URL, if it is found there; None if that cannot be said, whatever went wrong."""
    if host.settings.public_url is None:
        return None
    url = oss.public_url(host.settings, f"{row.record_id}/{row.stem}.flv")
    return url if await is_there(host, url) else None


async def is_there(host: TeacherHost, url: str) -> bool | None:
    """Whether a HEAD finds a rendition at *url*, or says that nothing is there any more; None if it cannot tell."""
    settings = host.settings
    allowed = Allowlist.listed(settings.allowed_origins).and_server_of(settings.public_url or "")
    with Caught() as failed:  # it stops no other rendition
        await origin.look(url, allowed=allowed, timeout_s=settings.http_timeout_s, first_bytes=True)
        return True
    if isinstance(failed.error, LecternError):
        log.info("%s: not found there: %s", redact_url(url), failed.error.message)
    elif failed.error is not None:
        log.error("%s: its output cannot be looked for: %s", redact_url(url), words(failed.error))
    return False if isinstance(failed.error, origin.Absent) else None
