"""How flows work: read the facts, decide, and write all of it in one transaction, or show it in a dry run."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, cast

from prefect.client.schemas.objects import State
from prefect.states import Completed
from sqlalchemy import Connection

from flows import show
from flows.batch import Apart, apart
from flows.host import Host, log
from lectern.changes import Changes
from lectern.commands import parse
from lectern.decide.lines import lines
from lectern.effects.rows import bookings, inbox
from lectern.effects.rows.changes import write
from lectern.errors import Malformed
from lectern.facts import Kept
from lectern.messages import Message
from lectern.runs.handled import FAILED, of_batch, summary
from lectern.settings import TeacherSettings
from lectern.streamer_changes import StreamerChanges

M = TypeVar("M", bound=Message)
C = TypeVar("C", Changes, StreamerChanges)
Decide = Callable[[Connection, C], None]
"""Reads the facts and adds what is decided. A dry run does not show what it writes itself."""


# -- one transaction ---------------------------------------------------------------------------------------------------


async def changed(host: Host[Any], decide: Decide[C], *, dry_run: bool = False) -> C:
    """Read the facts, decide, and write what is decided, in one transaction; a dry run reads and decides only."""
    go = host.look if dry_run else host.commit
    return await go(change, host, decide, dry_run=dry_run)


def change(connection: Connection, host: Host[Any], decide: Decide[C], *, dry_run: bool = False) -> C:
    """Read the facts, decide, and write as `changed` does, in the transaction of *connection*."""
    kind = Changes if isinstance(host.settings, TeacherSettings) else StreamerChanges
    changes = cast("C", kind(host.settings, time.time()))
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
        """The class that it is about, if that can be read."""
        found = getattr(self.message, "class_id", None)
        return found if isinstance(found, str) else None


async def read(host: Host[Any], ids: Sequence[int], kinds: tuple[type[M], ...]) -> list[Came[M]]:
    """What those of the messages *ids* say that are not handled yet; a batch just claimed is at hand already.

    They are parsed before the transaction, in which every other writer has to wait.
    """
    batch = of_batch.get()
    at_hand = batch is not None and batch.ids == list(ids)
    kept = batch.kept if batch is not None and at_hand else await host.look(inbox.read, host.journal, ids)
    return [came(one, kinds) for one in kept]


def came(kept: Kept, kinds: tuple[type[M], ...]) -> Came[M]:
    """The message *kept*, parsed, or the error that parsing it raised."""
    try:
        return Came(kept, parse(kept.body, kinds))
    except Exception as error:  # noqa: BLE001 (raised, or buried, when it is this message's turn)
        return Came(kept, error)


DecideAll = Callable[[Connection, C, Sequence[M]], None]


async def handled(
    host: Host[Any], some: Sequence[Came[M]], decide: DecideAll[C, M], *, dry_run: bool = False
) -> Apart[Came[M], C]:
    """Decide the messages together; those that cannot be handled stand apart."""
    name = "inbox {0.kept.id}".format
    return await apart(some, lambda part: changed(host, of_messages(host, part, decide), dry_run=dry_run), name)


def of_messages(host: Host[Any], some: Sequence[Came[M]], decide: DecideAll[C, M]) -> Decide[C]:
    """Let *decide* handle those messages that are not handled yet; ``changes.orders`` has their classes."""
    return partial(_of_messages, host, some, decide)


def _of_messages(
    host: Host[Any], some: Sequence[Came[M]], decide: DecideAll[C, M], connection: Connection, changes: C
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
    if isinstance(changes, Changes):
        class_ids = {class_id for one in mine if (class_id := one.class_id) is not None}
        changes.orders |= bookings.by_id(connection, list(class_ids))
    decide(connection, changes, good)
    for kept, fault in malformed:
        changes.bury(kept, fault)


# -- what is shown -----------------------------------------------------------------------------------------------------


async def ended(key: str, found: Apart[Came[M], C], said: str, came: int) -> State[None]:
    """The end of a run: what became of each of the *came* messages, in a table described by *said*, and its state."""
    rows = [row for one in found.done for row in one.table]
    blank: dict[str, object] = dict.fromkeys(rows[0] if rows else (), "")
    rows += [{**blank, "class": f"inbox {one.kept.id}", "decision": FAILED, "detail": why} for one, why in found.failed]
    await show.table(f"{key}-batch", rows, said)
    return found.state(summary(rows), came)


async def printed(key: str, some: Sequence[C], *more: str) -> State[None]:
    """The end of a dry run: what would be written, a line each, in the log and in a table; *more* are further lines."""
    said = [*(line for one in some for line in lines(one)), *more]
    for line in said[: show.ROWS]:
        log.info("dry run: %s", line)
    await show.table(f"{key}-plan", [{"would be written": line} for line in said], "What would be written")
    return Completed(message=f"dry run: {len(said)} changes" if said else "dry run: nothing to do")
