"""Messages to be sent are rows first: committed, then sent, sent again until they were."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, delete, insert, select, update

from lectern.effects.tables.shared import Journal
from lectern.messages import Message


class Kind(StrEnum):
    """How a message is sent."""

    CHANNEL = "channel"  # PUBLISH, and a bounded stream of the same name
    STREAM = "stream"  # XADD


@dataclass(frozen=True)
class Outgoing:
    """A message for *target*, a channel or stream."""

    target: str
    kind: Kind
    message: Message
    class_id: str | None = None


@dataclass(frozen=True)
class Unsent:
    """A committed message that is not known to be sent."""

    id: int
    target: str
    kind: Kind
    body: str


def put(connection: Connection, journal: Journal, outgoing: Iterable[Outgoing], now: float) -> None:
    """Add the messages to the transaction."""
    rows = [
        {
            "target": one.target,
            "kind": one.kind,
            "body": one.message.to_json(),
            "class_id": one.class_id,
            "created_at": now,
        }
        for one in outgoing
    ]
    if rows:
        connection.execute(insert(journal.outbox), rows)


def unsent(connection: Connection, journal: Journal, *, limit: int, after: int = 0) -> list[Unsent]:
    """The oldest unsent messages whose id is above *after*."""
    outbox = journal.outbox
    wanted = (
        select(outbox.c.id, outbox.c.target, outbox.c.kind, outbox.c.body)
        .where(outbox.c.sent_at.is_(None), outbox.c.id > after)
        .order_by(outbox.c.id)
        .limit(limit)
    )
    return [Unsent(row.id, row.target, Kind(row.kind), row.body) for row in connection.execute(wanted)]


def sent(connection: Connection, journal: Journal, ids: Sequence[int], now: float) -> None:
    """The messages were sent."""
    outbox = journal.outbox
    connection.execute(update(outbox).where(outbox.c.id.in_(ids)).values(sent_at=now))


def classes_of(connection: Connection, journal: Journal, ids: Sequence[int], target: str) -> list[str]:
    """The class_ids of those of *ids* that went to *target*."""
    outbox = journal.outbox
    wanted = outbox.c.id.in_(ids) & (outbox.c.target == target) & outbox.c.class_id.is_not(None)
    return [str(row.class_id) for row in connection.execute(select(outbox.c.class_id).where(wanted))]


def oldest_unsent(connection: Connection, journal: Journal) -> float | None:
    """When the oldest unsent message was committed, in epoch seconds."""
    outbox = journal.outbox
    wanted = select(outbox.c.created_at).where(outbox.c.sent_at.is_(None)).order_by(outbox.c.id).limit(1)
    found = connection.execute(wanted).scalar_one_or_none()
    return None if found is None else float(found)


def prune(connection: Connection, journal: Journal, before: float) -> None:
    """Forget what was sent before *before* (epoch seconds)."""
    outbox = journal.outbox
    connection.execute(delete(outbox).where(outbox.c.sent_at < before))
