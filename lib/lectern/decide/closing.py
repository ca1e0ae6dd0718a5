"""What a teacher does about classes of which nobody says anything any more: warn, tell again, close."""

from collections.abc import Collection, Sequence

from lectern import errors, outgoing
from lectern.changes import Changes
from lectern.facts import Order
from lectern.states import BookingState

TOLD_AGAIN = "told its streamer again"
"""Noted once a class: a long download would fill its story with it."""

UNENDED_S = 300.0
"""A class that ended more than these seconds ago, and whose streamer never said how, was not aired to its end."""


def warn(changes: Changes, late: Sequence[Order]) -> None:
    """Classes wait for longer than they may."""
    span = outgoing.span(changes.settings.order_warn_time_out_s)
    for order in late:
        said = f"{order.class_id} has waited for {order.stem} for more than {span}"
        changes.alarm(errors.STALE_WAITING, said, order)
        changes.warned.append(order.class_id)


def tell_again(changes: Changes, silent: Sequence[Order], noted: Collection[str]) -> None:
    """Streamers said nothing of classes that they were given; those *noted* were told again before."""
    for order in silent:
        changes.prepare(order)
        changes.told_again.append(order.class_id)
        if order.class_id not in noted:
            changes.note(TOLD_AGAIN, order)


def unended(over: Sequence[Order], now: float) -> list[Order]:
    """Those of the classes that are *over* which nobody will say anything of any more."""
    return [one for one in over if one.promised_at is None or one.end_time < now - UNENDED_S]


def close(changes: Changes, over: Sequence[Order]) -> None:
    """The time of classes is over, and their streamer never said a word, or not the last one."""
    for order in unended(over, changes.now):
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
