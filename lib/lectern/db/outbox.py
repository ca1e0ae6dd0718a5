"""The rows of messages to be sent, each committed first and retried until it is sent; alarms for people, too."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Float, Integer, bindparam, func, literal_column, select, update

from lectern.db.engine import bind_list, in_list, insert_many, update_many
from lectern.model.tables.teacher import journal
from lectern.wire.outgoing import Alarm, Outgoing, OutgoingKind

outbox = journal.outbox

SENDING_S = 20.0
"""Seconds for which a claimed message belongs to its teacher; after them, another may send it if it is still unsent."""

AGAIN_WITHIN_S = 60.0
"""Most seconds until a message that Redis refused is sent again."""

FAR_S = 3600.0
"""Seconds for which no message waits: one that does was refused before the clock was set back."""


class Rest(StrEnum):
    """What is still to be done with a message that Redis took in part, or not at all."""

    BOTH = "both"
    ADD = "add"
    PUBLISH = "publish"


@dataclass(frozen=True)
class Unsent:
    """A committed message that is not known to be sent; Redis refused it *tries* times, *rest* is still to be done."""

    id: int
    target: str
    kind: str  # an OutgoingKind
    body: str
    rest: str | None = None  # a Rest
    tries: int = 0
    class_id: str | None = None
    created_at: float = 0.0

    @property
    def todo(self) -> str:
        """What is to be done with the message now."""
        return self.rest or (Rest.BOTH if self.kind == OutgoingKind.CHANNEL else Rest.ADD)

    @property
    def is_told(self) -> bool:
        """Whether a part of it was sent before, so that somebody may have received it."""
        return self.rest not in (None, Rest.BOTH) and self.kind == OutgoingKind.CHANNEL


class Refusal(NamedTuple):
    """A message that Redis refused, at least in part: *rest* is still to be done with it."""

    message: Unsent
    rest: Rest
    why: str


def put(connection: Connection, outgoing: Iterable[Outgoing], now: float) -> None:
    """Add the messages to the transaction."""
    rows: list[tuple[object, ...]] = []
    for queued in outgoing:
        rows.append((queued.target, queued.kind, queued.message.to_json(), queued.class_id, now))
        if isinstance(queued.message, Alarm):
            from lectern import metrics  # noqa: PLC0415 (what only looks does without it)

            metrics.ALARMS.labels(str(queued.message.code)).inc()
    insert_many(connection, outbox, ("target", "kind", "body", "class_id", "created_at"), rows)


def unsent(connection: Connection, *, limit: int, now: float, such: ColumnElement[bool] | None = None) -> list[Unsent]:
    """The oldest messages that are to be sent now; a stream that refused a message gets none before that one.

    With *such*, only messages that fulfil this condition.
    """
    wanted = _UNSENT if such is None else _UNSENT.where(such)
    return [Unsent(*row) for row in connection.execute(wanted, {"now": now, "most": limit}).all()]


def last_id(connection: Connection) -> int:
    """The id of the newest message; 0 if there is none."""
    return connection.execute(select(func.max(outbox.c.id))).scalar_one() or 0


def answer_since(connection: Connection, target: str, class_id: str, after: int) -> str | None:
    """The body of the first message for *target* about a class that is newer than the message *after*."""
    mine = (outbox.c.class_id == class_id) & (outbox.c.target == target) & (outbox.c.id > after)
    return connection.execute(select(outbox.c.body).where(mine).order_by(outbox.c.id).limit(1)).scalar_one_or_none()


def rewrite(connection: Connection, messages: Sequence[Unsent]) -> None:
    """Write the bodies of messages of which nothing was sent yet."""
    rows = [(message.body, message.id) for message in messages]
    update_many(connection, outbox, (("id",), ()), ("body",), rows)


def free(me: str, now: float) -> ColumnElement[bool]:
    """Selects all messages except those for a target to which another teacher than *me* sends now."""
    others = outbox.c.sent_at.is_(None) & (outbox.c.lease_until > now) & (outbox.c.owner != me)
    return outbox.c.target.not_in(select(outbox.c.target).where(others))


def claim(connection: Connection, me: str, *, limit: int, now: float) -> list[Unsent]:
    """Claim what `unsent` returns for teacher *me*, except messages for a target to which another teacher sends now."""
    messages = unsent(connection, limit=limit, now=now, such=free(me, now))
    if messages:
        mine = update(outbox).where(in_list(outbox.c.id)).values(owner=me, lease_until=now + SENDING_S)
        connection.execute(mine, bind_list(message.id for message in messages))
    return messages


def unclaim(connection: Connection, me: str, ids: Sequence[int]) -> None:
    """Give back the messages that teacher *me* could not send and still owns: any teacher may send them."""
    theirs = update(outbox).where(in_list(outbox.c.id), outbox.c.owner == me).values(owner=None, lease_until=0)
    connection.execute(theirs, bind_list(ids))


_NOW = bindparam("now", type_=Float)
_IS_EARLY = (outbox.c.not_before > _NOW) & (outbox.c.not_before <= _NOW + FAR_S)
_IS_STREAM = outbox.c.kind == OutgoingKind.STREAM
_HELD_UP = select(outbox.c.target).where(outbox.c.sent_at.is_(None), _IS_EARLY, _IS_STREAM)
_UNSENT = (
    select(*(outbox.c[field.name] for field in fields(Unsent)))
    .where(outbox.c.sent_at.is_(None), ~_IS_EARLY, ~_IS_STREAM | outbox.c.target.not_in(_HELD_UP))
    .order_by(outbox.c.id)
    .limit(bindparam("most", type_=Integer))
)


_SENT = update(outbox).where(in_list(outbox.c.id)).values(sent_at=bindparam("at", type_=Float))


def sent(connection: Connection, ids: Sequence[int], now: float) -> None:
    """Note that the messages were sent."""
    if ids:
        connection.execute(_SENT, {**bind_list(ids), "at": now})


def refused(connection: Connection, refusals: Sequence[Refusal], now: float) -> None:
    """Note what Redis refused of each message, and why; the pause before the next try doubles up to a minute."""
    rows = [
        (message.tries + 1, now + min(2.0 ** min(message.tries, 10), AGAIN_WITHIN_S), rest, why, message.id)
        for message, rest, why in refusals
    ]
    update_many(connection, outbox, (("id",), ()), ("tries", "not_before", "rest", "error"), rows)


def oldest_unsent(connection: Connection) -> float | None:
    """When the oldest unsent message was committed (epoch seconds)."""
    wanted = select(outbox.c.created_at).where(outbox.c.sent_at.is_(None)).order_by(outbox.c.id).limit(1)
    return connection.execute(wanted).scalar_one_or_none()


class Telling(StrEnum):
    """Whether an alarm was passed on to people; the column is empty for messages that are not to be passed on."""

    DUE = "due"
    TOLD = "told"
    GIVEN_UP = "given up"
    GONE = "gone"  # of the webhook: its receiver has answered 410, and is the row's *error*


# A literal, because SQLite uses the index ix_outbox_list_due only if the statement contains the word itself.
_DUE: ColumnElement[str] = literal_column(f"'{Telling.DUE}'")


def note_due(connection: Connection, column: str, ids: Sequence[int]) -> None:
    """Mark these messages to be passed on, to *people* or the *webhook*, unless they were marked before."""
    if ids:
        new = in_list(outbox.c.id) & outbox.c[column].is_(None)
        connection.execute(update(outbox).where(new).values({column: Telling.DUE}), bind_list(ids))


def people_due(connection: Connection, limit: int) -> list[tuple[int, str]]:
    """The ids and bodies of the oldest *limit* alarms that are to be passed on to people."""
    wanted = select(outbox.c.id, outbox.c.body).where(outbox.c.people == _DUE).order_by(outbox.c.id).limit(limit)
    return [(int(row.id), str(row.body)) for row in connection.execute(wanted)]


def note_people(connection: Connection, outcomes: Mapping[int, Telling]) -> None:
    """Note for each alarm whether it was passed on to people, or given up."""
    rows = [(telling, id_) for id_, telling in outcomes.items()]
    update_many(connection, outbox, (("id",), ()), ("people",), rows)


# Answers and events for EVENT_WEBHOOK_URL: due when they are sent, and posted in the order of each class.


@dataclass(frozen=True)
class WebhookDue:
    """A message that is to be posted, the oldest one of its class; it was refused *tries* times."""

    id: int
    key: str
    body: str
    tries: int
    created_at: float


_WEBHOOK_DUE = outbox.c.webhook == _DUE
_OF_CLASS = func.coalesce(outbox.c.class_id, outbox.c.body)


def webhook_due(connection: Connection, now: float, limit: int) -> list[WebhookDue]:
    """The oldest message of each class that may be posted now, at most *limit*."""
    first = select(func.min(outbox.c.id)).where(_WEBHOOK_DUE).group_by(_OF_CLASS)
    its = outbox.c
    due = select(its.id, _OF_CLASS, its.body, its.webhook_tries, its.created_at).where(its.id.in_(first))
    is_early = (its.webhook_at > now) & (its.webhook_at <= now + FAR_S)
    rows = connection.execute(due.where(~is_early).order_by(its.id).limit(limit))
    return [WebhookDue(*row) for row in rows]


def webhook_body(connection: Connection, id_: int) -> str | None:
    """The message as it is by now, for an answer may have become a refusal; None if it is not to be posted any more."""
    wanted = select(outbox.c.body).where(outbox.c.id == id_, _WEBHOOK_DUE)
    return connection.execute(wanted).scalar_one_or_none()


def note_webhook(connection: Connection, id_: int, how: Telling, tries: int = 0, not_before: float = 0) -> None:
    """Note what became of a message that was posted."""
    values = {"webhook": how, "webhook_tries": tries, "webhook_at": not_before}
    connection.execute(update(outbox).where(outbox.c.id == id_).values(**values))


_GONE: ColumnElement[bool] = outbox.c.webhook == literal_column(f"'{Telling.GONE}'")


def give_webhook_up(connection: Connection, id_: int, receiver: str) -> bool:
    """Post nothing more to *receiver*, which has answered 410 to a message; False if that is known already."""
    if not connection.execute(update(outbox).where(_WEBHOOK_DUE).values(webhook=Telling.GIVEN_UP)).rowcount:
        return False
    gone = {"webhook": Telling.GONE, "error": receiver}
    connection.execute(update(outbox).where(outbox.c.id == id_).values(**gone))
    return True


def is_gone(connection: Connection, receiver: str) -> bool:
    """Whether *receiver* has answered 410, to whichever teacher."""
    gone = select(outbox.c.id).where(_GONE, outbox.c.error == receiver)
    return connection.execute(gone.limit(1)).first() is not None


def webhook_is_gone(connection: Connection, receiver: str) -> bool:
    """Whether *receiver* has answered 410: then nothing is due; what others have answered is forgotten."""
    others = update(outbox).where(_GONE, outbox.c.error != receiver)
    connection.execute(others.values(webhook=Telling.GIVEN_UP))
    if not is_gone(connection, receiver):
        return False
    connection.execute(update(outbox).where(_WEBHOOK_DUE).values(webhook=Telling.GIVEN_UP))
    return True
