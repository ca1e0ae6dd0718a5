"""Keeps each message as it came until it is handled, once for all teachers, and what was done with it."""

import hashlib
import json
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from sqlalchemy import Connection, Float, Integer, bindparam, func, or_, select, update

from lectern.db.engine import bind_list, in_list, insert_many, update_many
from lectern.errors import Misuse
from lectern.model.facts import InboxMessage, UnrecordedWork
from lectern.model.tables.teacher import journal
from lectern.states import InboxState
from lectern.wire.parser import fields_of

MAX_IDS = 100_000
FAR_S = 3600.0
"""Seconds beyond its lease until which no message is put off: one that is was put off before the clock was set back.
By less than this the clocks of teachers differ."""

WORKS = frozenset({"work", "sweep"})
"""The commands of rows that are no messages, but work that a host has done without a run."""

inbox = journal.inbox
_COLUMNS = ("source", "command", "body", "received_at", "state", "not_before")


@dataclass(frozen=True)
class ReceivedMessage:
    """A message as it came; *source* names its channel or stream, *command* decides which flow handles it.

    Teachers that share an inbox pair messages by *entry*, the id in a stream, by *at*, when it was heard, and by
    *since*, the earliest time at which it can have been sent, if known (epoch seconds).
    """

    source: str
    command: str
    body: str
    entry: str = ""
    at: float | None = None
    since: float | None = None


class HandledMessage(NamedTuple):
    """A handled message, or work without a run, that no run shows yet; *said* is the JSON of its lines of the table."""

    id: int
    command: str
    body: str
    error: str | None
    said: str | None
    handled_at: float
    run_key: str | None


def format_id_ranges(ids: Sequence[int]) -> str:
    """Ids in the short form ``3-7,9``, so that thousands of them are quickly written and read."""
    spans: list[list[int]] = []
    for id_ in ids:
        if spans and id_ == spans[-1][1] + 1:
            spans[-1][1] = id_
        else:
            spans.append([id_, id_])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def parse_id_ranges(text: str) -> list[int]:
    """The ids of ``3-7,9``, in its order, each once; raises Misuse for other text, or more than MAX_IDS."""
    ids: list[int] = []
    for part in text.split(",") if text.strip() else ():
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)) or int(first) > int(last or first):
            raise Misuse("{part!r:.60} is no id of the inbox. Write for example 3-7,9", part=part.strip())
        begin, end = int(first), int(last or first)
        if end - begin + len(ids) >= MAX_IDS:
            raise Misuse("{text!r:.60} are more than {most} ids. Name fewer, as in 3-7,9", text=text, most=MAX_IDS)
        ids.extend(range(begin, end + 1))
    return list(dict.fromkeys(ids))


def keep(connection: Connection, arrived: Sequence[ReceivedMessage], now: float) -> None:
    """Add the messages; after the commit they are ours to answer."""
    insert_many(connection, inbox, _COLUMNS, [_row(message, now, 0.0) for message in arrived])


def keep_claimed(
    connection: Connection, arrived: Sequence[ReceivedMessage], now: float, lease_s: float
) -> list[InboxMessage]:
    """Add the messages as `claim` would leave them; returns them, in their order.

    They get the ids that SQLite would give them, so that it need not be asked for each: its transaction is the only
    writer. Not for a database that several hosts write.
    """
    last = connection.execute(select(func.max(inbox.c.id))).scalar() or 0
    ids = range(last + 1, last + 1 + len(arrived))
    rows = [(id_, *_row(message, now, now + lease_s)) for id_, message in zip(ids, arrived, strict=True)]
    insert_many(connection, inbox, ("id", *_COLUMNS), rows)
    return [InboxMessage(id_, message.command, message.body, 0) for id_, message in zip(ids, arrived, strict=True)]


def _row(message: ReceivedMessage, now: float, not_before: float) -> tuple[object, ...]:
    return message.source, message.command, str(message.body), now, InboxState.NEW, not_before


def claim(
    connection: Connection, commands: Sequence[str], *, limit: int, lease_s: float, now: float, owner: str | None = None
) -> list[InboxMessage]:
    """Lease, for *lease_s*, the oldest messages of *commands* that nobody works on; afterwards others may claim them.

    Its keywords are the statement's parameters. It counts no try: a message whose process died is not at fault.
    Give *owner* if several teachers share the inbox.
    """
    given = {"now": now, "far": now + lease_s + FAR_S, **bind_list(commands, "commands"), "most": limit}
    messages = [InboxMessage(*row) for row in connection.execute(_DUE, given).all()]
    if messages:
        values = {"not_before": now + lease_s, **({"owner": owner} if owner else {})}
        _mark(connection, [message.id for message in messages], **values)
    return messages


_NEW = (
    select(inbox.c.id, inbox.c.command, inbox.c.body, inbox.c.tries)
    .where(inbox.c.state == InboxState.NEW)
    .order_by(inbox.c.id)
)
_IS_EARLY = (inbox.c.not_before > bindparam("now", type_=Float)) & (inbox.c.not_before <= bindparam("far", type_=Float))
_DUE = _NEW.where(~_IS_EARLY, in_list(inbox.c.command, "commands")).limit(bindparam("most", type_=Integer))
_NEW_AMONG = _NEW.where(in_list(inbox.c.id))


def read(connection: Connection, ids: Sequence[int]) -> list[InboxMessage]:
    """The messages among *ids* that are not handled yet, in their order of arrival."""
    return [InboxMessage(*row) for row in connection.execute(_NEW_AMONG, bind_list(ids)).all()]


def unhandled(connection: Connection, ids: Sequence[int]) -> set[int]:
    """The ids among *ids* of messages that are not handled yet."""
    wanted = _NEW_AMONG.with_only_columns(inbox.c.id)
    return {int(id_) for id_ in connection.execute(wanted, bind_list(ids)).scalars()}


def young(connection: Connection, ids: Sequence[int], now: float, within_s: float) -> set[int]:
    """The ids among *ids* of messages that came in the last *within_s* seconds before *now*."""
    wanted = select(inbox.c.id).where(in_list(inbox.c.id), inbox.c.received_at.between(now - within_s, now))
    return {int(id_) for id_ in connection.execute(wanted, bind_list(ids)).scalars()}


def of_commands(connection: Connection, ids: Sequence[int], commands: Iterable[str]) -> list[int]:
    """The ids among *ids* of messages with one of *commands*, in order."""
    wanted = select(inbox.c.id).where(in_list(inbox.c.id), in_list(inbox.c.command, "commands")).order_by(inbox.c.id)
    return list(connection.execute(wanted, {**bind_list(ids), **bind_list(commands, "commands")}).scalars())


def recorded(connection: Connection, ids: Sequence[int], now: float) -> None:
    """Note that a run shows these messages."""
    _mark(connection, ids, recorded_at=now)


def unrecorded(connection: Connection, limit: int, owner: str | None = None) -> list[HandledMessage]:
    """The handled messages that no run shows: those that Prefect was asked to show, else the oldest *limit* of all.

    If several share the inbox, only those of *owner*: the others may be about to show theirs.
    """
    which = UNSHOWN
    if owner is not None:
        which &= inbox.c.owner == owner
    handled_at = func.coalesce(inbox.c.handled_at, inbox.c.received_at)  # an earlier release does not note it
    columns = (inbox.c.id, inbox.c.command, inbox.c.body, inbox.c.error, inbox.c.said, handled_at, inbox.c.run_key)
    wanted = select(*columns).where(which).order_by(inbox.c.run_key, inbox.c.id)  # as its index is
    asked = connection.execute(wanted.where(inbox.c.run_key > "")).all()
    rows = asked or connection.execute(wanted.where(inbox.c.run_key.is_(None)).limit(limit))
    return [HandledMessage(*row) for row in rows]


UNSHOWN = inbox.c.recorded_at.is_(None) & (inbox.c.state != InboxState.NEW)
"""Selects the handled messages that no run shows; the index ix_inbox_list_unshown has them."""


def give_keys(connection: Connection, keys: Mapping[str, Sequence[int]]) -> None:
    """Write into the messages the key of the runs that are to show them, before Prefect is asked for these runs."""
    for key, ids in keys.items():
        _mark(connection, ids, run_key=key)


def done(
    connection: Connection, ids: Iterable[int], now: float, said: Mapping[int, str], *, is_shown: bool = False
) -> None:
    """Mark the messages as handled; what was *said* of each are lines of a table, as JSON, which its run may show."""
    names = ("state", "handled_at", "said", "recorded_at")
    rows = [(InboxState.DONE, now, said.get(id_), now if is_shown else None, id_) for id_ in ids]
    update_many(connection, inbox, (("id",), ()), names, rows)


def dead(connection: Connection, id_: int, error: str) -> None:
    """Mark the handled message as a dead letter, which could never be handled; *error* says why."""
    _mark(connection, [id_], state=InboxState.DEAD, error=error)


def keep_work(connection: Connection, work: UnrecordedWork, now: float, owner: str | None = None) -> None:
    """Add *work* that was done without a run, for a run that shows it. Give *owner* if several share the inbox."""
    body = asdict(work)
    values = {name: body.pop(name) for name in ("error", "said")} | {"run_key": body.pop("key")}
    values |= {"source": "host", "command": "sweep" if work.flow == "sweep" else "work", "body": json.dumps(body)}
    values |= {"state": InboxState.DONE, "received_at": work.began, "handled_at": now} | (
        {"owner": owner} if owner else {}
    )
    insert_many(connection, inbox, tuple(values), [tuple(values.values())])


def work_of(row: HandledMessage) -> UnrecordedWork | None:
    """The work without a run that *row* keeps; None if it is a message."""
    return UnrecordedWork(**json.loads(row.body)) if row.command in WORKS else None


def failed(connection: Connection, ids: Iterable[int], not_before: float) -> None:
    """Count a try of the messages, and give them back until *not_before* (epoch seconds)."""
    _mark(connection, list(ids), not_before=not_before, tries=inbox.c.tries + 1)


def put_off(connection: Connection, ids: Iterable[int], not_before: float) -> None:
    """Give the messages back until *not_before* (epoch seconds), as if they had not been claimed."""
    _mark(connection, list(ids), not_before=not_before)


def free_all(connection: Connection, owner: str | None = None) -> int:
    """Free what an earlier process of this host had claimed; call it at the start. Returns how many messages wait.

    If several teachers share the inbox, only what *owner* had claimed, or what names no owner, is freed.
    """
    mine = inbox.c.state == InboxState.NEW
    if owner is not None:
        mine &= or_(inbox.c.owner == owner, inbox.c.owner.is_(None))
    connection.execute(update(inbox).where(mine).values(not_before=0))
    return waiting(connection)


def waiting(connection: Connection) -> int:
    """Number of messages that are not handled."""
    return int(connection.execute(select(func.count()).where(inbox.c.state == InboxState.NEW)).scalar_one())


def unsettled(connection: Connection) -> tuple[int, int, int]:
    """Number of messages that no run shows, handled or not; the id of the last of them; number of those not handled."""
    wanted = select(func.count(), func.coalesce(func.max(inbox.c.id), 0)).where(inbox.c.recorded_at.is_(None))
    number, last = connection.execute(wanted).one()
    return int(number), int(last), waiting(connection)


def oldest(connection: Connection) -> float | None:
    """When the oldest unhandled message came (epoch seconds); None if there is none."""
    return connection.execute(select(func.min(inbox.c.received_at)).where(inbox.c.state == InboxState.NEW)).scalar()


def waits(connection: Connection, command: str) -> bool:
    """Whether a message of *command* is not handled."""
    wanted = select(inbox.c.id).where(inbox.c.state == InboxState.NEW, inbox.c.command == command).limit(1)
    return connection.execute(wanted).first() is not None


def coming(connection: Connection, command: str, class_ids: Collection[str]) -> set[str]:
    """The classes among *class_ids* of which a message of *command* is not handled yet."""
    wanted = select(inbox.c.body).where(inbox.c.state == InboxState.NEW, inbox.c.command == command)
    bodies = connection.execute(wanted.execution_options(yield_per=500)).scalars() if class_ids else ()
    named = (fields_of(body).get("class_id") for body in bodies)
    return {class_id for class_id in named if isinstance(class_id, str) and class_id in class_ids}


def answers(connection: Connection) -> None:
    """Check that the database answers, by a read in a transaction that may write; raises the driver's error."""
    connection.execute(select(inbox.c.id).limit(1)).first()


def _mark(connection: Connection, ids: Sequence[int], **values: object) -> None:
    if ids:
        among = in_list(inbox.c.id)
        connection.execute(update(inbox).where(among).values(**values), bind_list(ids))


SAME_S = 30.0
"""Seconds within which two teachers receive the same message; the same text later is a second message."""

AGAIN_S = 600.0
"""Seconds in which an entry of a stream can come again, because its first reader died before it acknowledged it."""


def keep_paired(
    connection: Connection, arrived: Sequence[ReceivedMessage], me: str, now: float, batch: str = ""
) -> list[ReceivedMessage]:
    """Add what teacher *me* read, except messages that have a row already; returns what is new.

    A channel brings each message to every teacher: the k-th receipt of it pairs with the k-th row, so that a platform
    that sends twice is answered twice. A stream brings an entry to one teacher, and to another after its death.
    The messages of the *batch* of this name are added once, even if this is retried because its commit was not
    confirmed.
    """
    texts = ["\0".join((message.source, message.entry, message.body)) for message in arrived]
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    there = _rows(
        connection, set(digests), min((message.since or message.at or now for message in arrived), default=now)
    )
    mark = f" {me}#{batch} "
    if batch and any(mark in heard_by for _, _, heard_by in there):
        return []
    rows: dict[str, deque[int]] = defaultdict(deque)
    for id_, digest, heard_by in there:
        if f" {me}#" not in heard_by:
            rows[digest].append(id_)
    new: list[tuple[object, ...]] = []
    heard: list[int] = []
    added: list[ReceivedMessage] = []
    for message, digest in zip(arrived, digests, strict=True):
        if rows[digest]:
            if not message.entry:
                heard.append(rows[digest].popleft())
            continue
        added.append(message)
        new.append((*_row(message, message.at or now, 0.0), digest, "" if message.entry else mark))
    if heard:
        known = inbox.c.heard_by + mark
        connection.execute(update(inbox).where(inbox.c.id.in_(heard)).values(heard_by=known))
    insert_many(connection, inbox, (*_COLUMNS, "digest", "heard_by"), new)
    return added


def _rows(connection: Connection, digests: set[str], since: float) -> list[tuple[int, str, str]]:
    """Id, digest and receivers of recent rows with one of *digests*, oldest first."""
    again = (inbox.c.heard_by == "") & (inbox.c.received_at > since - AGAIN_S)
    wanted = select(inbox.c.id, inbox.c.digest, inbox.c.heard_by).where(
        inbox.c.digest.in_(digests), (inbox.c.received_at > since - SAME_S) | again
    )
    return [(row.id, row.digest, row.heard_by) for row in connection.execute(wanted.order_by(inbox.c.id))]
