"""Cancels: take a class back wherever it is, and tell its streamer again until it confirms."""

from collections.abc import Collection, Sequence

from lectern import errors
from lectern.changes import Changes
from lectern.facts import Order
from lectern.messages import Booking, Cancel
from lectern.model.tables.teacher import CancelRow, cancels
from lectern.states import BOOKING_OVER, BookingState
from lectern.wire import BACKUP

EARLY_S = 600.0
"""Seconds for which the cancel of an unknown class is kept: its booking may arrive later, by another way."""


def cancel(changes: Changes, message: Cancel) -> None:
    """Cancel a class, its second airing and its revisions; the cancel of an unknown class is kept for its booking."""
    class_id = message.class_id
    if (second := f"{class_id}{BACKUP}") in changes.orders:
        cancel(changes, Cancel.model_construct(class_id=second))
    for revision in changes.revisions.get(class_id, ()):
        if changes.orders[revision].state not in BOOKING_OVER:
            cancel(changes, Cancel.model_construct(class_id=revision))
    order = changes.orders.get(class_id)
    if order is None:
        changes.await_cancel(class_id, None, changes.now + EARLY_S)
        changes.row(class_id, "cancel of an unknown class")
        changes.note("cancel of an unknown class", class_id=class_id)
        return
    # A broken class is not over before its end: a person may have retried it, so it may be on air.
    if order.state in BOOKING_OVER or (order.state is BookingState.BROKEN and order.end_time <= changes.now):
        changes.row(class_id, f"cancel of a class that is {order.state}")
        changes.note(f"cancel of a class that is {order.state}", order)
        return
    changes.move(order, BookingState.CANCELLED, order.code or 0)
    if order.state is BookingState.WAITING:
        changes.leaves.append((changes.waiting_key(order), class_id))
    if order.promised_at is None:
        changes.answer(order, errors.CANCELLED.number, errors.CANCELLED.meaning, order.deliveries)
    if order.streamer:
        changes.await_cancel(class_id, order.streamer, order.end_time)
        changes.release(order.streamer, class_id)
    changes.note("cancelled", order)
    changes.row(class_id, "cancel", where=order.streamer or "")


def cancel_second(changes: Changes, order: Order) -> None:
    """Cancel the second airing of a class that was refused: the platform was told that the class is not aired."""
    second = changes.orders.get(f"{order.class_id}{BACKUP}")
    if order.revises is None and second is not None and second.state not in BOOKING_OVER:
        cancel(changes, Cancel.model_construct(class_id=second.class_id))


def without_cancelled(changes: Changes, booked: Sequence[Booking], early: Collection[str]) -> list[Booking]:
    """Cancel those of *booked* whose cancel arrived before them (*early*); returns the other bookings.

    The second delivery of a booking that is cancelled here is returned too: it gets the same answer again.
    """
    others: list[Booking] = []
    code = errors.CANCELLED
    for booking in booked:
        if booking.class_id not in early or booking.class_id in changes.orders:
            others.append(booking)
            continue
        order = changes.move(changes.book(booking), BookingState.CANCELLED, code.number, code.meaning)
        changes.answer(order, code.number, code.meaning)
        changes.change(cancels, {"class_id": order.class_id}, {"streamer": None}, None)
        changes.note("cancelled before it was booked", order)
        changes.row(order.class_id, "cancelled before it was booked", code=code.number)
    return others


def tell_again(changes: Changes, unconfirmed: Sequence[CancelRow]) -> None:
    """Tell streamers again to release classes that were cancelled."""
    for one in unconfirmed:
        changes.release(one.streamer or "", one.class_id)
        changes.note("cancel told again", class_id=one.class_id, detail=f"to {one.streamer}")
        changes.cancel_told_again(one.class_id)
