"""Changes booked classes, also on air: new times, another push URL, another recording."""

import time
from collections.abc import Sequence
from functools import partial

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import ValidationError
from sqlalchemy import Connection

from flows.handling import Came, changed, ended, handled, put_off, read
from flows.host import NOWHERE, teacher
from flows.teacher.booking import after
from flows.teacher.roll import living
from flows.tries import AGAIN_S
from lectern.amendments import Change
from lectern.changes import Changes
from lectern.commands import in_words
from lectern.decide import revisions as decide
from lectern.decide.attempts import Limits
from lectern.decide.backups import twin_id
from lectern.effects.rows import bookings, inbox, renditions, revisions
from lectern.errors import Misuse, Refuse
from lectern.messages import Booking
from lectern.model.tables.teacher import journal

BOOKING_S = 10.0
"""Seconds for which a change of an unknown class waits for its booking, which may come by the other way.

The cancel of an unknown class waits longer, because nobody waits for its answer."""


@flow(name="change", persist_result=False, result_storage=NOWHERE)
async def change(
    inbox_ids: str = "",
    class_id: str = "",
    start_time: float | None = None,
    end_time: float | None = None,
    dry_run: bool = False,
) -> State[None]:
    """Change booked classes, as the messages of *inbox_ids* ask, or the times of one class by hand.

    Push URLs and recordings are changed by ``lectern change``: a parameter of a run is no place for a secret.
    """
    host = teacher()
    by_hand = [_by_hand(class_id, start_time, end_time)] if class_id else []
    batch = await read(host, inbox_ids, (Change,), dry_run=dry_run)
    go = partial(decided, await living(host))
    why = "the bookings of their classes are not here, or not handled yet"
    batch = await put_off(batch, await host.look(early, batch.came), AGAIN_S, why)
    found = await handled(host, batch.came, go, dry_run=dry_run)
    if by_hand:
        found.done.append(await changed(host, lambda c, changes: go(c, changes, by_hand), dry_run=dry_run))
    if not dry_run:
        await after(host, found.done)
    return await ended("change", batch, found, "What became of each change")


def early(connection: Connection, came: Sequence[Came[Change]]) -> list[int]:
    """The messages whose class is not known yet: its booking is in the inbox, or may still come by another way."""
    asked = {one.kept.id: one.message.class_id for one in came if isinstance(one.message, Change)}
    booked = revisions.booked(connection, list(asked.values()))
    unknown = {id_: class_id for id_, class_id in asked.items() if class_id not in booked}
    coming = revisions.coming(connection, set(unknown.values()))
    young = inbox.young(connection, journal, list(unknown), time.time(), BOOKING_S)
    return [id_ for id_, class_id in unknown.items() if class_id in coming or id_ in young]


def _by_hand(class_id: str, start_time: float | None, end_time: float | None) -> Change:
    try:
        return Change(class_id=class_id, start_time=start_time, end_time=end_time)
    except ValidationError as error:
        raise Misuse(in_words(error)) from error


def decided(alive: Sequence[str], connection: Connection, changes: Changes, asked: Sequence[Change]) -> None:
    """Decide changes of classes; the streamers *alive* can take classes."""
    known, limits = facts(connection, changes, asked, alive), Limits.of(changes.settings)
    changed_before: set[str] = set()
    for one in asked:
        if one.class_id in changed_before:  # together with the change before it, it may name what nobody looked for yet
            more = facts(connection, changes, [one], alive)
            known = decide.Facts(more.renditions | known.renditions, more.taken | known.taken, known.loads)
        changed_before.add(one.class_id)
        decide.decide(changes, [one], known, limits)


def facts(connection: Connection, changes: Changes, asked: Sequence[Change], alive: Sequence[str]) -> decide.Facts:
    """What the database says of the classes that are to be changed, and of what they shall be."""
    ids = [one.class_id for one in asked]
    both = [*ids, *map(twin_id, ids)]
    changes.learn(bookings.by_id(connection, both))
    changes.learn(revisions.of(connection, both))
    wanted = [one for each in asked if (one := _wanted(changes, each)) is not None]
    keys = {one.key for one in wanted if one.key is not None}
    return decide.Facts(
        dict(renditions.states(connection, keys)),
        bookings.taken(connection, wanted, changes.now),
        bookings.loads(connection, alive, changes.now),
    )


def _wanted(changes: Changes, asked: Change) -> Booking | None:
    try:
        return decide.wanted(changes.orders, changes.revisions.get(asked.class_id, ()), asked)[1]
    except Refuse:
        return None  # the decision refuses it, too
