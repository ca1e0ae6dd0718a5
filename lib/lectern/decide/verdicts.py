"""What becomes of a class: it proceeds to a streamer, moves to another, or is answered again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lectern import errors
from lectern.changes import Changes
from lectern.decide import backups
from lectern.decide.cancels import cancel_second
from lectern.decide.placement import place
from lectern.facts import Order
from lectern.states import BookingState

ANSWERED = frozenset({BookingState.READY, BookingState.AIRED, BookingState.AIRED_WITH_GAPS, BookingState.BROKEN})
"""States that a class reaches only after the platform was answered with success."""

Loads = dict[str, int]
"""The number of classes of each living streamer; who places a class counts it here."""


@dataclass(frozen=True)
class Choice:
    """The streamers that classes can be moved to."""

    loads: Loads
    no: Mapping[str, set[str]]
    """The streamers that have refused each class."""
    back: Mapping[str, str] = field(default_factory=dict)
    """The streamer from which each class was taken before, if it can have the class back."""


def proceed(changes: Changes, going: Sequence[tuple[Order, str]], loads: Loads) -> None:
    """Choose a streamer for each class and tell it; refuse a class that has ended or finds no living streamer."""
    open_: list[tuple[Order, str]] = []
    for order, url in going:
        if order.revises is not None:
            follow(changes, order, url)
        elif order.end_time > changes.now:
            open_.append((order, url))
        else:
            changes.refuse(order, errors.ENDED, "it ended before its rendition was there")
    chosen = place([order.stem for order, _ in open_], loads, changes.settings.streamer_load_slack)
    for (order, url), streamer in zip(open_, chosen, strict=True):
        if streamer is None:
            changes.refuse(order, errors.NO_STREAMER, f"{order.stem}: {changes.no_streamer()}", alarm=True)
            continue
        loads[streamer] += 1
        changes.place(order, streamer, url)
        changes.note("placed", order, f"on {streamer}")
        changes.row(order.class_id, "proceed", where=streamer, detail=order.stem)
        backups.add(changes, order, streamer, url, loads)


def follow(changes: Changes, revision: Order, url: str) -> None:
    """Send a revision to the streamer of its class; refuse the change if no streamer has the class any more."""
    its = changes.orders.get(revision.revises or "")
    if its is None or its.state not in backups.ON:
        changes.refuse(revision, errors.ENDED, f"the class is {its.state if its else 'not there'}")
        return
    changes.place(revision, its.streamer or "", url)
    changes.row(revision.class_id, "proceed", where=its.streamer or "", detail=revision.stem)


def place_again(changes: Changes, orders: Sequence[Order], choice: Choice, why: str, *, refused: bool) -> None:
    """Take the classes from their streamers, and give each to another that has not refused it.

    If there is no other, a class goes back to the streamer that it was taken from before. The platform is not told. A
    class that no streamer can take is broken, with an alarm, if the platform was promised it; otherwise it is refused.
    *refused*: its streamer could not prepare it (False: it is lost or drained).
    """
    for order in orders:
        if changes.orders.get(order.class_id, order).state not in backups.ON:
            continue  # it was the second airing of a class before it, which no streamer could take
        before = order.streamer or ""
        (chosen,) = place([order.stem], open_to(changes, order, choice), changes.settings.streamer_load_slack)
        chosen = chosen or choice.back.get(order.class_id)
        changes.take(order.class_id, before, order.placement, refused=refused)
        changes.release(before, order.class_id, order.placement)
        if chosen is None:
            _nowhere(changes, order, why)
            continue
        if chosen in choice.loads:
            choice.loads[chosen] += 1
        changes.place(order, chosen, order.url or "")
        changes.note("moved", order, f"from {before} to {chosen}: {why}")
        changes.row(order.class_id, "moved", where=chosen, detail=f"from {before}: {why}")


def open_to(changes: Changes, order: Order, choice: Choice) -> Mapping[str, int]:
    """The streamers to which a class can be moved, with their loads."""
    barred = {*choice.no.get(order.class_id, ()), order.streamer}
    return backups.apart(changes, order, {name: load for name, load in choice.loads.items() if name not in barred})


def _nowhere(changes: Changes, order: Order, why: str) -> None:
    if order.revises is not None or (order.promised_at is None and order.state is not BookingState.READY):
        changes.refuse(order, errors.NO_STREAMER, why, alarm=True)
        cancel_second(changes, order)
        return
    code, said = errors.NOT_MOVED, f"{why}; no other streamer can take it"
    changes.move(order, BookingState.BROKEN, code.number, why)
    changes.alarm(code, f"{order.class_id}: {said}", order)
    changes.note("broken", order, f"{code.number}: {said}")
    changes.row(order.class_id, BookingState.BROKEN, code=code.number, detail=why)


def answer_again(changes: Changes, order: Order) -> None:
    """Answer a booking that was delivered again as before, if it was answered before."""
    if order.state is BookingState.REFUSED:
        changes.answer(order, order.code or 0, order.message or "")
    elif order.state is BookingState.CANCELLED:
        changes.answer(order, errors.CANCELLED.number, errors.CANCELLED.meaning)
    elif order.promised_at is not None and order.promised_at >= order.end_time:  # it came too late the first time
        changes.answer(order, errors.ENDED.number, errors.ENDED.meaning)
    elif order.state in ANSWERED or order.promised_at is not None:
        changes.answer(order, 0, "prepared")
    changes.count_delivery(order)
    changes.note("delivered again", order)
    changes.row(order.class_id, "delivered again", code=order.code or 0)


def refuse_other(changes: Changes, order: Order, why: str) -> None:
    """Refuse another booking of a class that is booked; the first one stands, and its answer is still to come."""
    code, said = errors.CONFLICT, f"{why}; the first booking stands, it is {order.state}"
    changes.refuse_another(order.class_id, code.number, said)
    changes.alarm(code, f"{order.class_id}: {said}", class_id=order.class_id)
    changes.note("another booking refused", order, f"{code.number}: {said}")
    changes.row(order.class_id, "refuse another booking", code=code.number, detail=said)
