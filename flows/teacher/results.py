"""Settles transcoding results: waiting classes proceed or are refused, or the rendition falls back to ECS."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from prefect import flow
from prefect.client.schemas.objects import State
from sqlalchemy import Connection

from flows.handling import batch_flow, changed, read
from flows.host import NOWHERE, Teacher, log, teacher
from flows.teacher.attempts import start_ecs
from flows.teacher.ecs import flow as ecs
from flows.teacher.roll import living
from flows.tell import tell
from lectern.changes import Changes
from lectern.decide import results as decide
from lectern.decide import transcode
from lectern.decide.results import Waiters
from lectern.effects import counters
from lectern.effects.rows import bookings, renditions, revisions
from lectern.errors import TryAgain
from lectern.facts import RenditionKey
from lectern.messages import TranscodingResult
from lectern.stems import stem
from lectern.wire import class_of, is_name

Lists = Mapping[RenditionKey, list[str]]
"""The class_ids on the Redis waiting lists; the old program's are among them."""


@flow(name="settle", persist_result=False, result_storage=NOWHERE)
async def settle(inbox_ids: str, dry_run: bool = False) -> State[None]:
    """Settle the transcoding results of *inbox_ids*: waiting classes proceed or are refused."""
    batch = await read(teacher(), inbox_ids, (TranscodingResult,), dry_run=dry_run)
    alive = await living(batch.host)
    results = [one.message for one in batch.came if isinstance(one.message, TranscodingResult)]
    lists = await old_waiters(batch.host, set(map(_key, results)))
    go, after = partial(decided, alive, lists), partial(follow, lists=lists)
    return await batch_flow("settle", batch, go, after, "What became of each result and its classes")


async def settle_now(host: Teacher, result: TranscodingResult) -> Changes:
    """Settle a result that did not come over the bus; raises TryAgain while Redis is away."""
    alive = await living(host)
    lists = await old_waiters(host, {_key(result)})
    changes = await changed(host, lambda connection, changes: decided(alive, lists, connection, changes, [result]))
    await follow(host, [changes], lists)
    return changes


def decided(
    alive: Sequence[str], lists: Lists, connection: Connection, changes: Changes, results: Sequence[TranscodingResult]
) -> None:
    """Decide what follows from transcoding results; the streamers *alive* can take classes."""
    rows = renditions.states(connection, {_key(one) for one in results})
    settled = transcode.settle(results, rows, ecs=bool(changes.settings.ecs_hosts))
    ending = [one.key for one in settled if one.outcome in decide.ENDS]
    waiters = waiters_of(connection, changes, ending, lists)
    loads = bookings.loads(connection, alive, changes.now) if ending else {}
    for one in settled:
        its = waiters.get(one.key) or Waiters(listed=_readable(one.key, lists))
        decide.apply(changes, one, rows.get(one.key), its, decide.Ahead(loads, changes.now + ecs.DEADLINE_S))
        if one.outcome is transcode.Outcome.IGNORE:
            log.info("%s: a late, doubled or older result changes nothing", one.stem)


def _readable(key: RenditionKey, lists: Lists) -> list[str]:
    """The class_ids on a waiting list, without revisions; other entries are logged, and deleted with the list."""
    listed = lists.get(key, ())
    if odd := sum(not is_name(class_of(one)) for one in listed):
        log.warning("redis: the waiting list of %s has %d entries that are no class_id", stem(*key), odd)
    return [one for one in listed if is_name(one)]


def waiters_of(
    connection: Connection, changes: Changes, keys: Iterable[RenditionKey], lists: Lists
) -> dict[RenditionKey, Waiters]:
    """Who waits for each of *keys*, in the database and on the lists; the classes of revisions are then known."""
    found: dict[RenditionKey, Waiters] = {}
    for key in keys:
        listed = _readable(key, lists)
        found[key] = Waiters(bookings.waiting_for(connection, *key), listed, revisions.booked(connection, listed))
        revised = [one.revises for one in found[key].orders if one.revises is not None]
        changes.learn(bookings.by_id(connection, revised))
    return found


async def follow(host: Teacher, some: Sequence[Changes], lists: Lists) -> None:
    """After the commit: send messages, drop the waiting lists of ended transcodings, begin ECS transcodings."""
    for one in some:
        for backend, outcome in one.transcoded:
            counters.TRANSCODES.labels(backend, outcome).inc()
    await tell(host)
    await drop_lists(host, [key for one in some for key in one.ended], lists)
    await start_ecs(host, [key for one in some for key, _ in one.fallen])


def _key(result: TranscodingResult) -> RenditionKey:
    return result.record_id, result.video_resolution


async def old_waiters(host: Teacher, keys: set[RenditionKey]) -> dict[RenditionKey, list[str]]:
    """The class_ids on the Redis waiting lists of *keys*; the old program's are among them."""
    names = {key: host.settings.waiting_key.format(record_id=key[0], resolution=key[1]) for key in keys}
    try:
        found = await host.bus.waiting(list(names.values()))
    except TryAgain as error:
        log.warning("redis: the waiting lists cannot be read: %s", error)
        return {key: [] for key in keys}
    return {key: found[name] for key, name in names.items()}


async def drop_lists(host: Teacher, keys: Sequence[RenditionKey], lists: Lists) -> None:
    """Delete the entries that were read from the waiting lists; classes that joined since stay."""
    counts = {
        host.settings.waiting_key.format(record_id=key[0], resolution=key[1]): len(lists[key])
        for key in keys
        if lists.get(key)
    }
    try:
        await host.bus.drop_waiting(counts)
    except TryAgain as error:
        log.warning("redis: drained waiting lists stay: %s", error)
