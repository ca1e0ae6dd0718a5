"""How the teacher's flows work: read the facts, decide, write it all in one transaction; a dry run only shows it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from prefect.client.schemas.objects import State
from prefect.states import Completed
from redis.exceptions import RedisError
from sqlalchemy import Connection

from flows import show
from flows.batch import FAILED, PUT_BACK, Apart, apart, kept_of
from flows.host import Teacher, log
from lectern.changes import Changes
from lectern.commands import parse
from lectern.decide import verdicts
from lectern.decide.lines import lines
from lectern.effects.rows import bookings, inbox, leases
from lectern.effects.rows.changes import write
from lectern.errors import Malformed, TryAgain
from lectern.facts import Kept
from lectern.messages import Message

M = TypeVar("M", bound=Message)
AGAIN_S = 2.0
FIRST_STREAMER_S = 300.0
"""Seconds for which a teacher that never had a streamer keeps bookings: a rollout brings the first one after it."""

BEATS = 2
"""After so many intervals of heartbeats with Redis there (again), every living streamer has been heard."""

Decide = Callable[[Connection, Changes], None]
"""Reads the facts, and adds what is decided; whatever it writes itself is not shown by a dry run."""


async def living(host: Teacher) -> list[str]:
    """The streamers that were heard of lately, by name.

    Raises TryAgain where that cannot be known: while Redis is away, in the first seconds after it came back, and for
    some minutes where there was never a streamer yet.
    """
    settings = host.settings
    try:
        found = await host.bus.alive(settings.streamers_key, settings.streamer_lost_after_s)
    except (RedisError, OSError) as error:
        raise TryAgain(f"the streamers' heartbeats cannot be read: {error}") from error
    # A Redis that was started anew has forgotten the beats; we have not.
    alive = sorted({*found, *host.living_now()})
    listened_s = time.monotonic() - host.listens_since
    if not alive and listened_s < BEATS * settings.heartbeat_interval_s:
        raise TryAgain("no streamer was heard of yet")
    if not alive and listened_s < FIRST_STREAMER_S and not await host.look(leases.holders):
        raise TryAgain("no streamer of this release has ever been leased here; is one about to be rolled out?")
    return alive


async def put_back(host: Teacher, inbox_ids: Sequence[int], error: TryAgain, *, dry_run: bool) -> State[None]:
    """Messages that cannot be handled before Redis is back go back to the inbox, as if they had just come."""
    if dry_run:
        return Completed(message=f"dry run: {len(inbox_ids)} messages would wait: {error.message}")
    log.warning("%d messages wait in the inbox: %s", len(inbox_ids), error.message)
    await host.commit(inbox.put_off, host.journal, inbox_ids, time.time() + AGAIN_S)
    return Completed(name=PUT_BACK, message=f"{len(inbox_ids)} messages wait: {error.message}")


# -- one transaction ---------------------------------------------------------------------------------------------------


async def changed(host: Teacher, decide: Decide, *, dry_run: bool = False) -> Changes:
    """Read the facts, decide, and write what is decided, in one transaction; a dry run reads and decides only."""
    go = host.look if dry_run else host.commit
    return await go(change, host, decide, dry_run=dry_run)


def change(connection: Connection, host: Teacher, decide: Decide, *, dry_run: bool = False) -> Changes:
    """Do it in the transaction of *connection*."""
    changes = Changes(host.settings, time.time())
    decide(connection, changes)
    if not dry_run:
        write(connection, host.journal, changes)
    return changes


# -- messages ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Came(Generic[M]):
    """A message of the inbox, or what is wrong with it."""

    kept: Kept
    message: M | Exception

    @property
    def class_id(self) -> str | None:
        """The class that it is about, where that can be read."""
        found = getattr(self.message, "class_id", None)
        return found if isinstance(found, str) else None


async def read(host: Teacher, ids: Sequence[int], kinds: tuple[type[M], ...]) -> list[Came[M]]:
    """What the messages *ids* say, parsed before the transaction, in which every other writer has to wait."""
    return [came(one, kinds) for one in await kept_of(host, ids)]


def came(kept: Kept, kinds: tuple[type[M], ...]) -> Came[M]:
    """What *kept* says."""
    try:
        return Came(kept, parse(kept.body, kinds))
    except Exception as error:  # noqa: BLE001 (raised, or buried, when it is this message's turn)
        return Came(kept, error)


DecideAll = Callable[[Connection, Changes, Sequence[M]], None]


async def handled(
    host: Teacher, some: Sequence[Came[M]], decide: DecideAll[M], *, dry_run: bool
) -> Apart[Came[M], Changes]:
    """Decide the messages together; those that cannot be handled stand apart."""
    name = "inbox {0.kept.id}".format
    return await apart(some, lambda part: changed(host, of_messages(host, part, decide), dry_run=dry_run), name)


def of_messages(host: Teacher, some: Sequence[Came[M]], decide: DecideAll[M]) -> Decide:
    """What *decide* makes of those messages that nobody has handled yet; ``changes.orders`` has their classes."""
    return partial(_of_messages, host, some, decide)


def _of_messages(
    host: Teacher, some: Sequence[Came[M]], decide: DecideAll[M], connection: Connection, changes: Changes
) -> None:
    new = inbox.unhandled(connection, host.journal, [one.kept.id for one in some])
    mine = [one for one in some if one.kept.id in new]
    good: list[M] = []
    malformed: list[tuple[Kept, Malformed]] = []
    for one in mine:
        if isinstance(one.message, Malformed):
            malformed.append((one.kept, one.message))
        elif isinstance(one.message, Exception):
            raise one.message
        else:
            good.append(one.message)
            changes.done.append(one.kept.id)
    changes.orders |= bookings.by_id(connection, list({one.class_id for one in mine if one.class_id is not None}))
    decide(connection, changes, good)
    for kept, fault in malformed:
        verdicts.bury(changes, kept, fault)


# -- what is shown -----------------------------------------------------------------------------------------------------


def table(found: Apart[Came[M], Changes]) -> list[dict[str, object]]:
    """What became of each message, and those that could not be handled."""
    rows = [row for one in found.done for row in one.table]
    failed: Sequence[Mapping[str, object]] = [
        {"class": f"inbox {one.kept.id}", "decision": FAILED, "code": "", "where": "", "detail": why}
        for one, why in found.failed
    ]
    return [*rows, *map(dict, failed)]


async def printed(key: str, some: Sequence[Changes], *more: str) -> State[None]:
    """The end of a dry run: what would be written, a line each, in the log and in a table; *more* is said beside it."""
    said = [*(line for one in some for line in lines(one)), *more]
    for line in said[: show.ROWS]:
        log.info("dry run: %s", line)
    await show.table(f"{key}-plan", [{"would be written": line} for line in said], "What would be written")
    return Completed(message=f"dry run: {len(said)} changes" if said else "dry run: nothing to do")
