"""Cancels: a class is taken back from wherever it is, its streamer is told until it confirms it."""

from collections.abc import Sequence

from sqlalchemy import Connection

from flows.batch import Batch
from flows.teacher.verdicts import Teacher, give_answer, to_streamer, waiting_key
from lectern import errors
from lectern.effects.rows import bookings, cancels, events, outbox
from lectern.effects.rows.bookings import Outcome
from lectern.facts import Event, Unconfirmed
from lectern.messages import Booking, Cancel, Release
from lectern.outgoing import Outgoing
from lectern.states import BookingState

EARLY_S = 600.0
"""Seconds for which the cancel of a class that nobody has booked is kept: its booking may come over another way."""


def cancel(connection: Connection, host: Teacher, message: Cancel, batch: Batch, now: float) -> None:
    """Cancel a class; if nobody has booked it, its booking is cancelled when it comes."""
    class_id, name = message.class_id, host.settings.name
    order = bookings.by_id(connection, [class_id]).get(class_id)
    if order is None:
        cancels.expect(connection, class_id, now + EARLY_S, now)
        batch.row(class_id, "cancel of an unknown class")
        events.note(connection, host.journal, name, [Event("cancel of an unknown class", class_id)], now)
        return
    # A broken class is not over before its end: a person may have retried it, so it may be on air.
    is_over = order.state is BookingState.BROKEN and order.end_time <= now
    if is_over or order.state in {BookingState.REFUSED, BookingState.CANCELLED, BookingState.AIRED}:
        batch.row(class_id, f"cancel of a class that is {order.state}")
        return
    bookings.close(connection, order, BookingState.CANCELLED, now, code=order.code or 0)
    if order.state is BookingState.WAITING:
        batch.leaves.append((waiting_key(host, order), class_id))
    if order.promised_at is None:
        give_answer(connection, host, order, errors.CANCELLED.number, errors.CANCELLED.meaning, now)
    if order.streamer:
        cancels.tell(connection, class_id, order.streamer, order.end_time, now)
        outbox.put(connection, host.journal, [_release(host, class_id, order.streamer)], now)
    events.note(connection, host.journal, name, [Event("cancelled", class_id, order.stem)], now)
    batch.row(class_id, "cancel", where=order.streamer or "")


def without_cancelled(
    connection: Connection, host: Teacher, booked: Sequence[Booking], batch: Batch, now: float, *, dry_run: bool
) -> list[Booking]:
    """Cancel those of *booked* whose cancel came before them; returns the others.

    A second delivery of one that is cancelled here is among the others: it gets the same answer once more.
    """
    early = cancels.cancelled_before(connection, [one.class_id for one in booked], now)
    dead = {one.class_id: one for one in reversed(booked) if one.class_id in early}
    for class_id in dead:
        batch.row(class_id, "cancelled before it was booked", code=errors.CANCELLED.number)
    if dead and not dry_run:
        _cancelled(connection, host, list(dead.values()), now)
    return [one for one in booked if dead.get(one.class_id) is not one]


def _cancelled(connection: Connection, host: Teacher, dead: Sequence[Booking], now: float) -> None:
    orders = bookings.add(connection, [(one, BookingState.RECEIVED) for one in dead], now)
    code = errors.CANCELLED
    for order in orders.values():
        give_answer(connection, host, order, code.number, code.meaning, now)
    outcomes = [Outcome(order, BookingState.CANCELLED, code.number, code.meaning) for order in orders.values()]
    bookings.close_all(connection, outcomes, now)
    noted = [Event("cancelled before it was booked", order.class_id, order.stem) for order in orders.values()]
    events.note(connection, host.journal, host.settings.name, noted, now)
    cancels.booked(connection, list(orders))


def tell_again(connection: Connection, host: Teacher, unconfirmed: Sequence[Unconfirmed], now: float) -> None:
    """Tell streamers once more to give up classes that were cancelled."""
    if not unconfirmed:
        return
    outbox.put(connection, host.journal, releases(host, unconfirmed), now)
    told = [Event("cancel told again", one.class_id, detail=f"to {one.streamer}") for one in unconfirmed]
    events.note(connection, host.journal, host.settings.name, told, now)
    cancels.touch(connection, [one.class_id for one in unconfirmed], now)


def releases(host: Teacher, unconfirmed: Sequence[Unconfirmed]) -> list[Outgoing]:
    """What the streamers are told of cancelled classes."""
    return [_release(host, one.class_id, one.streamer) for one in unconfirmed]


def _release(host: Teacher, class_id: str, streamer: str) -> Outgoing:
    return to_streamer(host, streamer, Release(class_id=class_id), class_id)
