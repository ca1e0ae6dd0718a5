"""What a teacher does about classes without news: raise an alarm, send them to their streamer again, close them."""

from collections.abc import Collection, Sequence

from lectern import errors, words
from lectern.changes import Changes
from lectern.facts import Order
from lectern.states import BookingState

TOLD_AGAIN = "told its streamer again"
"""An event that is recorded once for a class: during a long download its repetitions would fill the story."""

UNENDED_S = 300.0
"""Seconds after its end after which a class counts as broken if its streamer has not reported how it ended."""


def warn(changes: Changes, late: Sequence[Order]) -> None:
    """Raise an alarm for each of the *late* classes: its rendition has taken longer than ORDER_WARN_TIME_OUT_S."""
    span = words.span(changes.settings.order_warn_time_out_s)
    for order in late:
        its = order.class_id if order.revises is None else f"{order.revises}: its change"
        said = f"{its} has waited for {order.stem} for more than {span}"
        changes.alarm(errors.STALE_WAITING, said, order)
        changes.note_of(order.class_id, warned_at=changes.now)


def tell_again(changes: Changes, silent: Sequence[Order], noted: Collection[str]) -> None:
    """Send *silent* classes to their streamers again; the event is recorded unless the class is in *noted*."""
    for order in silent:
        changes.prepare(order)
        changes.note_of(order.class_id, updated_at=changes.now)
        if order.class_id not in noted:
            changes.note(TOLD_AGAIN, order)


def unended(over: Sequence[Order], now: float) -> list[Order]:
    """The classes among *over* whose streamer is no longer expected to report."""
    return [one for one in over if one.promised_at is None or one.end_time < now - UNENDED_S]


def close(changes: Changes, over: Sequence[Order]) -> None:
    """Close classes whose time is over: they still wait, or their streamer never reported, or not the end."""
    for order in unended(over, changes.now):
        if order.state is BookingState.WAITING:
            changes.leaves.append((changes.waiting_key(order), order.class_id))
            changes.refuse(order, errors.ENDED, "it ended before its rendition was there", alarm=True)
            continue
        if order.promised_at is None:
            why = f"{order.streamer} did not say in time that it is ready"
            changes.refuse(order, errors.ENDED, why, alarm=True)
            continue
        code, why = errors.AIRING_BROKEN, f"{order.streamer} never said how it ended"
        changes.move(order, BookingState.BROKEN, code.number, why)
        said = f"{order.class_id}: {why}"
        changes.alarm(code, said, class_id=order.class_id, record_id=order.record_id)
        changes.note(BookingState.BROKEN, order, why)
        changes.row(order.class_id, BookingState.BROKEN, where=order.streamer or "", code=code.number, detail=why)
