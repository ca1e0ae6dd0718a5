"""Keeps one row of a message that several teachers receive, by pairing each receipt with a row new to that teacher."""

import hashlib
from collections import defaultdict, deque
from collections.abc import Sequence

from sqlalchemy import Connection, insert, select, update

from lectern.effects.rows.inbox import Arrived
from lectern.model.tables.teacher import journal
from lectern.states import InboxState

SAME_S = 30.0
"""Seconds within which two teachers receive the same message; the same text later is a second message."""

AGAIN_S = 600.0
"""Seconds in which an entry of a stream can come again, because its first reader died before it acknowledged it."""


def keep(connection: Connection, arrived: Sequence[Arrived], me: str, now: float, batch: str = "") -> list[Arrived]:
    """Add what teacher *me* read, except messages that have a row already; returns what is new.

    A channel brings each message to every teacher: the k-th receipt of it pairs with the k-th row, so that a platform
    that sends twice is answered twice. A stream brings an entry to one teacher, and to another after its death.
    The messages of the *batch* of this name are added once, even if this is retried because its commit was not
    confirmed.
    """
    inbox = journal.inbox
    digests = [_digest(one) for one in arrived]
    there = _rows(connection, set(digests), min((one.since or one.at or now for one in arrived), default=now))
    mark = f" {me}#{batch} "
    if batch and any(mark in heard_by for _, _, heard_by in there):
        return []
    rows: dict[str, deque[int]] = defaultdict(deque)
    for id_, digest, heard_by in there:
        if f" {me}#" not in heard_by:
            rows[digest].append(id_)
    new: list[dict[str, object]] = []
    heard: list[int] = []
    added: list[Arrived] = []
    for one, digest in zip(arrived, digests, strict=True):
        if rows[digest]:
            if not one.entry:
                heard.append(rows[digest].popleft())
            continue
        added.append(one)
        fields = {"source": one.source, "command": one.command, "body": one.body, "received_at": one.at or now}
        new.append({**fields, "state": InboxState.NEW, "digest": digest, "heard_by": "" if one.entry else mark})
    if heard:
        known = inbox.c.heard_by + mark
        connection.execute(update(inbox).where(inbox.c.id.in_(heard)).values(heard_by=known))
    if new:
        connection.execute(insert(inbox), new)
    return added


def _digest(one: Arrived) -> str:
    return hashlib.sha256("\0".join((one.source, one.entry, one.body)).encode()).hexdigest()


def _rows(connection: Connection, digests: set[str], since: float) -> list[tuple[int, str, str]]:
    """Id, digest and receivers of recent rows with one of *digests*, oldest first."""
    inbox = journal.inbox
    again = (inbox.c.heard_by == "") & (inbox.c.received_at > since - AGAIN_S)
    wanted = select(inbox.c.id, inbox.c.digest, inbox.c.heard_by).where(
        inbox.c.digest.in_(digests), (inbox.c.received_at > since - SAME_S) | again
    )
    return [(row.id, row.digest, row.heard_by) for row in connection.execute(wanted.order_by(inbox.c.id))]
