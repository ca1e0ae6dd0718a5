"""Transcoding results and passed deadlines: waiting classes proceed, fall back or are refused."""

import time
from collections.abc import Sequence

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from redis.exceptions import RedisError
from sqlalchemy import Connection

from flows import show
from flows.batch import FAILED, Apart, Batch, apart, summary
from flows.host import NOWHERE, log, teacher
from flows.teacher.attempts import start_ecs
from flows.teacher.ecs import flow as ecs
from flows.teacher.verdicts import Refusal, Teacher, bury, living, proceed, put_back, refuse_all
from flows.tell import tell
from lectern import errors, outgoing
from lectern.commands import parse
from lectern.decide import transcode as decide
from lectern.decide.transcode import Outcome, Settled
from lectern.effects.rows import bookings, events, inbox, metrics, outbox, renditions
from lectern.errors import CallAPerson, ErrorCode, Malformed, TryAgain
from lectern.facts import Event, Kept, Order, RenditionKey, Underway
from lectern.messages import Alarm, TranscodingResult
from lectern.outgoing import Kind, Outgoing
from lectern.states import RenditionState
from lectern.stems import stem


@flow(name="settle", persist_result=False, result_storage=NOWHERE)
async def settle(inbox_ids: str, dry_run: bool = False) -> State[None]:
    """Settle the transcoding results of *inbox_ids*: waiting classes proceed or are refused."""
    host, ids = teacher(), inbox.ids_of(inbox_ids)
    batch = Batch()
    results, bad = await host.commit(_read, host, ids)
    if dry_run:
        return Completed(message=f"dry run: {len(results)} results")
    if bad:
        await host.commit(_bury_all, host, bad, batch)
    try:
        found = await _settle(host, results, batch)
    except TryAgain as error:
        return await put_back(host, [inbox_id for inbox_id, _ in results], error)
    await show.table("settle-batch", batch.table, "What became of each result and its classes")
    return found.state(summary(batch.table), len(ids))


async def settle_now(host: Teacher, result: TranscodingResult, batch: Batch) -> None:
    """Settle a result that did not come over the bus; raises TryAgain while Redis is away."""
    for _, why in (await _settle(host, [(0, result)], batch)).failed:
        raise CallAPerson(f"{stem(result.record_id, result.video_resolution)}: its result is not settled: {why}")


def _read(
    connection: Connection, host: Teacher, ids: list[int]
) -> tuple[list[tuple[int, TranscodingResult]], list[tuple[Kept, Malformed]]]:
    results: list[tuple[int, TranscodingResult]] = []
    bad: list[tuple[Kept, Malformed]] = []
    for kept in inbox.read(connection, host.journal, ids):
        try:
            results.append((kept.id, parse(kept.body, (TranscodingResult,))))
        except Malformed as error:
            bad.append((kept, error))
    return results, bad


def _bury_all(connection: Connection, host: Teacher, bad: Sequence[tuple[Kept, Malformed]], batch: Batch) -> None:
    for kept, error in bad:
        bury(connection, host, kept, error, batch, time.time())


_Result = tuple[int, TranscodingResult]
"""And the id that it has in the inbox; 0 where it did not come over the bus."""


async def _settle(
    host: Teacher, results: Sequence[_Result], batch: Batch
) -> Apart[_Result, tuple[list[Settled], Batch]]:
    if not results:
        return Apart()
    alive = await living(host)
    lists = await old_waiters(host, {(r.record_id, r.video_resolution) for _, r in results})
    found = await apart(results, lambda some: host.commit(_act, host, some, alive, lists), _name)
    settled: list[Settled] = []
    for some, portion in found.done:
        settled += some
        batch.add(portion)
    for one, why in found.failed:
        batch.row(_name(one), FAILED, detail=why)
    await tell(host)
    over = {Outcome.SUCCEED, Outcome.FAIL, Outcome.TIME_OUT}
    await drop_lists(host, [one.key for one in settled if one.outcome in over], lists)
    await start_ecs(host, [one.key for one in settled if one.outcome is Outcome.FALL_BACK])
    return found


def _name(one: _Result) -> str:
    return f"inbox {one[0]}, {stem(one[1].record_id, one[1].video_resolution)}"


async def old_waiters(host: Teacher, keys: set[RenditionKey]) -> dict[RenditionKey, list[str]]:
    """The class_ids on the Redis waiting lists of *keys*; the old program's are among them."""
    names = {key: host.settings.waiting_key.format(record_id=key[0], resolution=key[1]) for key in keys}
    try:
        found = await host.bus.waiting(list(names.values()))
    except (RedisError, OSError) as error:
        log.warning("redis: the waiting lists can not be read: %s", error)
        return {key: [] for key in keys}
    return {key: found[name] for key, name in names.items()}


async def drop_lists(host: Teacher, keys: Sequence[RenditionKey], lists: dict[RenditionKey, list[str]]) -> None:
    """Delete what was read of the waiting lists; who joined since, stays."""
    counts = {
        host.settings.waiting_key.format(record_id=key[0], resolution=key[1]): len(lists[key])
        for key in keys
        if lists.get(key)
    }
    try:
        await host.bus.drop_waiting(counts)
    except (RedisError, OSError) as error:
        log.warning("redis: drained waiting lists stay: %s", error)


def _act(
    connection: Connection,
    host: Teacher,
    results: Sequence[tuple[int, TranscodingResult]],
    alive: list[str],
    lists: dict[RenditionKey, list[str]],
) -> tuple[list[Settled], Batch]:
    now, batch = time.time(), Batch()
    rows = renditions.underway(connection, {(r.record_id, r.video_resolution) for _, r in results})
    settled = decide.settle(results, rows, ecs=bool(host.settings.ecs_hosts))
    for one in settled:
        row = rows.get(one.key)
        backend = one.result.type or (row and row.backend) or "unknown"
        metrics.TRANSCODES.labels(str(backend), "success" if one.result.success else "failed").inc()
        _apply(connection, host, one, row, alive, lists.get(one.key, []), batch, now)
        batch.row(one.stem, one.outcome, detail=one.result.message or "")
    inbox.done(connection, host.journal, [one.inbox_id for one in settled])
    return settled, batch


def _apply(
    connection: Connection,
    host: Teacher,
    one: Settled,
    row: Underway | None,
    alive: list[str],
    listed: list[str],
    batch: Batch,
    now: float,
) -> None:
    why = one.result.message or f"{one.result.type or 'the'} transcoding of {one.stem}: {one.result.result}"
    match one.outcome:
        case Outcome.SUCCEED if row is not None:
            succeed(
                connection, host, one.key, row.state, one.result.transcode_video_url or "", alive, listed, batch, now
            )
        case Outcome.CORRECT if row is not None:
            renditions.move(
                connection,
                one.key,
                row.state,
                RenditionState.SUCCESS,
                now,
                url=one.result.transcode_video_url,
                deadline=None,
            )
        case Outcome.FAIL if row is not None:
            give_up(connection, host, one.key, RenditionState.FAILED, errors.TRANSCODE_FAILED, why, listed, batch, now)
        case Outcome.TIME_OUT if row is not None:
            late = RenditionState.TIMED_OUT
            give_up(connection, host, one.key, late, errors.TRANSCODE_TIMED_OUT, why, listed, batch, now)
        case Outcome.FALL_BACK:
            renditions.fall_back(connection, [one.key], now + ecs.DEADLINE_S, now)
        case Outcome.ALARM:
            outbox.put(connection, host.journal, [host.alarm(_unknown(host, one, listed, now))], now)
        case _:
            log.info("%s: a late, doubled or older result changes nothing", one.stem)
    note = Event(
        f"result: {one.result.result}", stem=one.stem, detail=f"{one.result.type or 'no type'}: {one.outcome}. {why}"
    )
    events.note(connection, host.journal, host.settings.name, [note], now)


def _unknown(host: Teacher, one: Settled, listed: Sequence[str], now: float) -> Alarm:
    """The alarm for a result of a rendition that has no row; its waiting list stays as it is."""
    said = f"{one.stem}: a result came, and nobody asked for it"
    if listed:
        key = host.settings.waiting_key.format(record_id=one.key[0], resolution=one.key[1])
        classes = "1 class waits" if len(listed) == 1 else f"{len(listed):,} classes wait"
        said += f". {classes} on the list {key}, and nobody answers: type redis-cli LRANGE {key} 0 -1"
    record_id, resolution = one.key
    return outgoing.alarm(
        errors.UNKNOWN_RENDITION, said, now, host.settings.name, record_id=record_id, resolution=resolution
    )


def succeed(
    connection: Connection,
    host: Teacher,
    key: RenditionKey,
    old: RenditionState,
    url: str,
    alive: list[str],
    listed: list[str],
    batch: Batch,
    now: float,
) -> None:
    """The rendition is there: every waiting class proceeds with *url*."""
    renditions.move(connection, key, old, RenditionState.SUCCESS, now, url=url, deadline=None)
    waiting = bookings.waiting_for(connection, *key)
    proceed(connection, host, [(order, url) for order in waiting], batch, alive, now)
    _orphans(connection, host, key, waiting, listed, batch, now)


def give_up(
    connection: Connection,
    host: Teacher,
    key: RenditionKey,
    state: RenditionState,
    code: ErrorCode,
    why: str,
    listed: list[str],
    batch: Batch,
    now: float,
) -> None:
    """The rendition will not be there: every waiting class is refused with *code*; one alarm for all."""
    renditions.move(connection, key, RenditionState.TRANSCODING, state, now, reason=why, deadline=None)
    waiting = bookings.waiting_for(connection, *key)
    refuse_all(connection, host, [Refusal(order, code, why) for order in waiting], batch, now)
    _orphans(connection, host, key, waiting, listed, batch, now)
    cry = outgoing.alarm(
        code,
        f"{stem(*key)}: {why}; {len(waiting)} classes refused",
        now,
        host.settings.name,
        record_id=key[0],
        resolution=key[1],
    )
    outbox.put(connection, host.journal, [host.alarm(cry)], now)


def _orphans(
    connection: Connection,
    host: Teacher,
    key: RenditionKey,
    waiting: Sequence[Order],
    listed: list[str],
    batch: Batch,
    now: float,
) -> None:
    """Class_ids that the old program left on the waiting list: we have no booking of them, so say so."""
    known = {order.class_id for order in waiting} | set(bookings.by_id(connection, listed))
    code = errors.ORPHANED_WAITER
    for class_id in dict.fromkeys(one for one in listed if one not in known):
        said = f"{class_id} waited for {stem(*key)}; its booking is not known here"
        answer = Outgoing(
            host.settings.order_result_channel, Kind.CHANNEL, outgoing.answer(class_id, code.number, said), class_id
        )
        cry = host.alarm(outgoing.alarm(code, said, now, host.settings.name, class_id=class_id))
        outbox.put(connection, host.journal, [answer, cry], now)
        batch.row(class_id, "refuse", code=code.number, detail=said)
