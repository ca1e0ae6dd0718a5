"""How flows work: read the facts, decide, and write (or print) all in one transaction; no failure stops the rest."""

import json
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Completed, Failed
from pydantic_core import to_json
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from flows import artifacts
from flows.failures import words
from flows.host import Host, StreamerHost, TeacherHost, claimed, log
from flows.outbox_publisher import publish_outbox
from lectern import metrics
from lectern.db import bookings, events, inbox
from lectern.db.writer import lines, write
from lectern.errors import Caught, Malformed, TryAgain
from lectern.model.facts import InboxMessage, UnrecordedWork
from lectern.model.plan import Changes
from lectern.model.streamer_plan import StreamerChanges
from lectern.run_records import FAILED, is_no_class, summary
from lectern.urls import redact
from lectern.wire.fields import called, class_of
from lectern.wire.messages import Message
from lectern.wire.parser import parse

M = TypeVar("M", bound=Message)
I = TypeVar("I")  # noqa: E741 (an item)
T = TypeVar("T")
P = ParamSpec("P")
C = TypeVar("C", Changes, StreamerChanges)
S = TypeVar("S", TeacherHost, StreamerHost)
BOUND = 20
"""Number of failed items after which the rest is left to a later run: more point to the database, not to the items."""

GRACE_S = 5.0  # seconds for which a sweep leaves something new to the run that began it
SWEEP = "a sweep"  # the entry of `Host.in_progress` while a sweep is at work; no class has this name

Decide = Callable[[Connection, C], None]
"""Reads the facts and adds its decisions to the changes; what it writes to the database itself, no dry run shows."""


def decision(decide: Callable[Concatenate[Connection, C, P], None]) -> Callable[P, Decide[C]]:
    """Let *decide*, called with all but its first two parameters, return the `Decide` that gets those."""

    @wraps(decide)
    def given(*args: P.args, **kwargs: P.kwargs) -> Decide[C]:
        return lambda connection, changes: decide(connection, changes, *args, **kwargs)

    return given


# -- one transaction ---------------------------------------------------------------------------------------------------
async def changed(host: Host[Any], decide: Decide[C], *, dry_run: bool = False) -> C:
    """Read the facts, decide, and write what is decided, in one transaction; a dry run reads and decides only."""
    if dry_run:
        return await host.read_tx(change, host, decide, dry_run=True)
    changes = await host.write_tx(change, host, decide)
    if isinstance(changes, StreamerChanges):
        metrics.EVICTIONS.inc(len(changes.evicted))
        metrics.DOWNLOAD_BYTES.inc(changes.downloaded_bytes)
        for missing_s in changes.missing_s:
            metrics.MISSING.observe(missing_s)
    return changes


def change(connection: Connection, host: Host[Any], decide: Decide[C], *, dry_run: bool = False) -> C:
    """Read the facts, decide, and write as `changed` does, in the transaction of *connection*."""
    changes: C = host.changes()
    decide(connection, changes)
    if not dry_run:
        write(connection, changes)
    elif isinstance(changes, Changes):
        events.number(connection, changes)
    return changes


# -- one by one, if need be --------------------------------------------------------------------------------------------
@dataclass
class BatchResult(Generic[I, T]):
    """The results of the smaller batches that a batch became, and the items that failed, each with its reason."""

    done: list[T] = field(default_factory=list)
    failed: list[tuple[I, str]] = field(default_factory=list)


async def apart(
    host: Host[Any],
    items: Sequence[I],
    decide: Callable[[Sequence[I]], Decide[C]],
    name: Callable[[I], str],
    *,
    dry_run: bool = False,
) -> BatchResult[I, C]:
    """Decide all *items* in one transaction, see `changed`; if it fails, halve them until those at fault stand alone.

    Raises OperationalError or TryAgain if the database or Redis is away.
    """
    found: BatchResult[I, C] = BatchResult()
    waiting = deque([list(items)])
    while waiting:
        some = waiting.popleft()
        with Caught(OperationalError, TryAgain) as failed:
            found.done.append(await changed(host, decide(some), dry_run=dry_run))
        if failed.error is not None and len(some) > 1 and len(found.failed) < BOUND:
            middle = len(some) // 2
            waiting.extendleft([some[middle:], some[:middle]])
        elif failed.error is not None:
            why = words(failed.error)
            log.error("%s: not handled: %s", ", ".join(name(one) for one in some[:BOUND]), why)
            found.failed += [(one, why) for one in some]
    return found


# -- messages ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Delivery(Generic[M]):
    """A message of the inbox, or what is wrong with it."""

    kept: InboxMessage
    message: M | Exception


@dataclass(frozen=True)
class Batch(Generic[M]):
    """The messages of a flow that are not handled yet, of *asked* in all; a *dry_run* only prints what it decides."""

    host: Any  # a TeacherHost or a StreamerHost, as the flow is
    came: list[Delivery[M]]
    asked: int
    dry_run: bool


async def read(host: Host[Any], inbox_ids: str, kinds: tuple[type[M], ...], *, dry_run: bool) -> Batch[M]:
    """Read the messages that this task has just claimed, or else those of *inbox_ids*, parsed.

    They are parsed before the transaction, because every other writer has to wait for its end.
    """
    ids = [one.id for one in claimed.get()] or inbox.parse_id_ranges(inbox_ids)
    kept = claimed.get() or await host.read_tx(inbox.read, ids)
    return Batch(host, [came(one, kinds) for one in kept], len(ids), dry_run)


async def put_off(batch: Batch[M], ids: Collection[int], wait_s: float, why: str) -> Batch[M]:
    """Leave the messages *ids* in the inbox for *wait_s*, because of *why*; returns the rest of the batch."""
    if not ids:
        return batch
    log.info("%d messages wait for %.0f s: %s", len(ids), wait_s, why)
    if not batch.dry_run:
        await batch.host.write_tx(inbox.put_off, sorted(ids), time.time() + wait_s)
        claimed.set([one for one in claimed.get() if one.id not in ids])  # they have not failed if the others do
    return replace(batch, came=[one for one in batch.came if one.kept.id not in ids])


def came(kept: InboxMessage, kinds: tuple[type[M], ...]) -> Delivery[M]:
    """The message *kept*, parsed, or the error that parsing it raised."""
    with Caught() as failed:
        return Delivery(kept, parse(kept.body, kinds, kept.command))
    error = failed.error  # raised when it is this message's turn
    assert error is not None
    if isinstance(error, Malformed):
        # Its words are all that is needed. Its frames hold the batch, which holds it: garbage that stays for long.
        error.__cause__ = error.__context__ = None
        error = error.with_traceback(None)
    failed.error = None
    return Delivery(kept, error)


DecideAll = Callable[[Connection, C, Sequence[M]], None]
After = Callable[[Any, Sequence[C]], Awaitable[object]]
"""What follows the commit, on this host."""


async def batch_flow(name: str, batch: Batch[M], decide: DecideAll[C, M], after: After[C], title: str) -> State[None]:
    """The body of a flow that handles a batch: decide, write, do what comes *after*, and show it under this *title*.

    Raises TryAgain while Redis is away; what is not handled then is put back into the inbox (`flows.failures`).
    """
    found = await handled(batch.host, batch.came, decide, dry_run=batch.dry_run)
    if not batch.dry_run:
        await after(batch.host, found.done)
    return await ended(name, batch, found, title)


async def handled(
    host: Host[Any], some: Sequence[Delivery[M]], decide: DecideAll[C, M], *, dry_run: bool = False
) -> BatchResult[Delivery[M], C]:
    """Decide the messages together; those that cannot be handled are isolated, see `apart`."""
    name = "inbox {0.kept.id}".format
    return await apart(host, some, lambda part: partial(of_messages, part, decide), name, dry_run=dry_run)


def of_messages(some: Sequence[Delivery[M]], decide: DecideAll[C, M], connection: Connection, changes: C) -> None:
    """Let *decide* handle those messages that are not handled yet; ``changes.orders`` has their classes."""
    new = inbox.unhandled(connection, [one.kept.id for one in some])
    mine = [one for one in some if one.kept.id in new]
    good: list[M] = []
    malformed: list[tuple[InboxMessage, Malformed]] = []
    for one in mine:
        if isinstance(one.message, Malformed):
            malformed.append((one.kept, one.message))
        elif isinstance(one.message, Exception):
            raise one.message
        else:
            good.append(one.message)
            changes.done.append(one.kept.id)
    if isinstance(changes, Changes):
        about = {getattr(one.message, "class_id", None) for one in mine}  # a malformed message may have none
        changes.orders |= bookings.by_id(connection, [one for one in about if isinstance(one, str)])
    decide(connection, changes, good)
    for kept, fault in malformed:
        changes.dead_letter(kept, fault)
    named = [(id_, getattr(one, "class_id", None)) for id_, one in zip(changes.done, good, strict=True)]
    named += [(kept.id, fault.class_id) for kept, fault in malformed]
    changes.said = said_of(named, changes.table)
    changes.shown = FlowRunContext.get() is not None


def said_of(messages: Iterable[tuple[int, str | None]], table: Iterable[Mapping[str, object]]) -> dict[int, str]:
    """What was decided about each of *messages* (id, class_id) in one transaction: its lines of *table*, as JSON.

    A revision counts as its class. Lines that name no message, as that of a second airing, belong to the message of the
    line before; those of a result come before its own.
    """
    named: dict[str, deque[int]] = defaultdict(deque)
    nameless: deque[int] = deque()
    for id_, about in messages:
        (named[called(about)] if about else nameless).append(id_)
    found: dict[int, list[Mapping[str, object]]] = defaultdict(list)
    waiting: list[Mapping[str, object]] = []
    last = next((ids[0] for ids in (*named.values(), nameless) if ids), None)
    before = ""  # the class of the line before
    for line in table:
        name = called(str(line["class"]))
        class_id = class_of(name)
        is_second, before = not waiting and class_id == before, class_id
        waiting.append({key: redact(str(value)) for key, value in line.items() if value})
        if ids := named.get(name):
            last = ids[0] if len(ids) == 1 else ids.popleft()
        elif nameless and is_no_class(before):
            last = nameless.popleft()
        elif nameless and not is_second:
            continue
        if last is not None:
            found[last] += waiting
        waiting = []
    if last is not None and waiting:
        found[last] += waiting
    return {id_: to_json(lines).decode() for id_, lines in found.items()}


# -- what is shown -----------------------------------------------------------------------------------------------------
async def ended(name: str, batch: Batch[M], found: BatchResult[Delivery[M], C], title: str) -> State[None]:
    """The end of a batch: its state, and what became of each message, in a table of this *title*; or its dry run.

    It has failed if a message did; a retry does only these again.
    """
    if batch.dry_run:
        return await printed(name, found.done)
    if not found.failed and FlowRunContext.get() is None:
        return Completed()  # the recorder shows it
    rows = [row for one in found.done for row in one.table]
    blank: dict[str, object] = dict.fromkeys(rows[0] if rows else (), "")
    rows += [{**blank, "class": f"inbox {one.kept.id}", "decision": FAILED, "detail": why} for one, why in found.failed]
    await artifacts.table(f"{name}-batch", rows, title)
    if not found.failed:
        return Completed(message=summary(rows))
    failed = f"{len(found.failed)} of {batch.asked} failed: {found.failed[0][1]}"
    return Failed(message=f"{failed}; the others: {summary(rows)}")


Swept = tuple[Sequence[Changes | StreamerChanges], str, Sequence[str]]
"""What a sweep has changed, in one sentence, too, and a line for each thing that it does beside."""


async def sweep_flow(host: S, sweep: Callable[[S, bool], Awaitable[Swept]], dry_run: bool) -> State[None]:
    """Sweep, unless another sweep is at work: if Prefect is slow, sweeps would pile up and make it slower.

    Its run shows what it did; for one without a run, which found something to do, the recorder makes a run.
    """
    if SWEEP in host.in_progress:
        return Completed(message="another sweep is at work")
    host.in_progress.add(SWEEP)
    try:
        done, said, more = await sweep(host, dry_run)
        if dry_run:
            return await printed("sweep", done, *more)
        is_sent, rows = await publish_outbox(host), [row for one in done for row in one.table]
        said = said if is_sent else f"{said}; Redis is away"
        if FlowRunContext.get() is None:
            if is_sent and not more and not any(map(lines, done)):
                return Completed(message="nothing to do")
            name = f"sweep {host.settings.name}"
            await noted(host, UnrecordedWork("sweep", name, time.time(), said, said=json.dumps(rows)))
        await artifacts.table("sweep-batch", rows, "What passed its deadline")
        return Completed(message=said)
    finally:
        host.in_progress.discard(SWEEP)


async def noted(host: Host[Any], work: UnrecordedWork) -> None:
    """Keep *work* that was done without a run, for the recorder."""
    owner = host.settings.name if host.settings.shared else None
    await host.write_tx(inbox.keep_work, work, time.time(), owner)


async def printed(key: str, some: Sequence[Changes | StreamerChanges], *more: str) -> State[None]:
    """The end of a dry run: what would be written, a line each, in the log and in a table; *more* are further lines."""
    said = [*(line for one in some for line in lines(one)), *more]
    for line in said[: artifacts.ROWS]:
        log.info("dry run: %s", line)
    await artifacts.table(f"{key}-plan", [{"would be written": line} for line in said], "What would be written")
    return Completed(message=f"dry run: {len(said)} changes" if said else "dry run: nothing to do")
