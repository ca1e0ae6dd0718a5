"""The rows of changed classes: their revisions, and the classes themselves once a revision is in force."""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, select

from lectern.commands import fields_of
from lectern.effects.rows import bookings
from lectern.effects.rows.many import among, these
from lectern.facts import Order
from lectern.model.tables.teacher import journal, orders
from lectern.states import BookingState, InboxState

WAITS = (BookingState.WAITING, *bookings.LOADING)
"""States of a revision that is neither in force nor refused."""

_REVISIONS = select(orders.c.class_id).where(among(orders.c.revises))


def of(connection: Connection, class_ids: Sequence[str]) -> dict[str, Order]:
    """The revisions of *class_ids* by their own ids, including revisions that are in force or refused."""
    if not class_ids:
        return {}
    ids = list(connection.execute(_REVISIONS, these(class_ids)).scalars())
    return bookings.by_id(connection, ids)


def booked(connection: Connection, class_ids: Sequence[str]) -> set[str]:
    """The classes among *class_ids* that are booked, also those whose rows cannot be read."""
    return set(
        connection.execute(select(orders.c.class_id).where(among(orders.c.class_id)), these(class_ids)).scalars()
    )


def coming(connection: Connection, class_ids: Collection[str]) -> set[str]:
    """The classes among *class_ids* whose bookings are in the inbox, not handled yet."""
    inbox = journal.inbox
    wanted = select(inbox.c.body).where(inbox.c.state == InboxState.NEW, inbox.c.command == "order")
    bodies = connection.execute(wanted.execution_options(yield_per=500)).scalars() if class_ids else ()
    named = (fields_of(one).get("class_id") for one in bodies)
    return {one for one in named if isinstance(one, str) and one in class_ids}


def forsaken(connection: Connection, before: float) -> list[Order]:
    """The revisions that still wait although their class is over, or does not exist.

    One that its streamer is to apply waits for its report until *before*: the end of its class may have overtaken it.
    """
    its = orders.alias()
    goes_on = its.c.state.in_(WAITS)
    reports = (orders.c.state == BookingState.READY) & (its.c.updated_at >= before)
    alive = select(its.c.class_id).where(its.c.class_id == orders.c.revises, goes_on | reports).exists()
    return bookings.where(connection, orders.c.revises.is_not(None) & orders.c.state.in_(WAITS) & ~alive)
