"""Which streamer airs a class, and the second push of it: rendezvous hashing with bounded load among those alive."""

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from pydantic_core import from_json

from lectern import errors
from lectern.decide import gaps
from lectern.i18n import Text, labelled
from lectern.model.facts import AsRun, Order
from lectern.model.plan import Changes, Increment
from lectern.model.tables.teacher import CancelRow, cancels
from lectern.states import BOOKING_OVER, ON_STREAMER, BookingState
from lectern.wire import outgoing
from lectern.wire.fields import BACKUP, PLATFORM
from lectern.wire.messages import Booking, Cancel, Change
from lectern.wire.outgoing import Outgoing, OutgoingKind


@lru_cache(maxsize=256)
def _on(streamer: str) -> Text:
    """Where a class was placed: one for all classes of a storm."""
    return Text("on {streamer}", streamer=streamer)


@lru_cache(maxsize=4096)
def ranking(stem: str, streamers: tuple[str, ...]) -> list[str]:
    """The *streamers*, best first for *stem*; the order of two does not depend on who else is alive."""
    weight = {name: hashlib.blake2b(f"{stem}\0{name}".encode(), digest_size=8).digest() for name in streamers}
    return sorted(sorted(streamers), key=weight.__getitem__, reverse=True)


def chosen_for(stem: str, loads: Mapping[str, int], slack: float) -> str | None:
    """The streamer for a class whose rendition is *stem*; None if none is alive.

    *loads* is the number of classes on each living streamer. No streamer gets more than *slack* times its fair share,
    so a popular rendition spreads over a few streamers, and an unpopular one goes where it is cached.
    """
    if not loads:
        return None
    bound = math.ceil(slack * (sum(loads.values()) + 1) / len(loads))
    return next(name for name in ranking(stem, tuple(loads)) if loads[name] < bound)


OUTCOMES = {
    BookingState.AIRED: "whole",
    BookingState.AIRED_WITH_GAPS: "with_gaps",
    BookingState.CANCELLED: "cancelled",
    BookingState.BROKEN: "not_aired",
}
NOTHING_SENT = gaps.sent(0.0, 0.0, ())


def end(
    changes: Changes, order: Order, why: tuple[int, str], sent: gaps.SentAccount, parts: Sequence[AsRun] = ()
) -> None:
    """State that a class is over, as *order* is then, with code and sentence; *sent* is what its *parts* come to."""
    outcome = OUTCOMES[order.state]
    if outcome == "not_aired" and sent.recording_s > 0:
        outcome = "with_gaps"
    began, ended = min((part.begins for part in parts), default=None), max((part.ends for part in parts), default=None)
    facts: dict[str, Any] = {"start_time": order.start_time, "end_time": order.end_time}
    facts |= {"began_at": began, "ended_at": ended}
    sums = {"sent_s": sent.recording_s, "slate_s": sent.slate_s, "missing_s": sent.missing_s}
    facts |= {name: round(seconds, 3) for name, seconds in sums.items()}
    changes.announce(order, "ended", *why, outcome=outcome, sessions=sent.sessions, **facts)


EARLY_S = 600.0
"""Seconds for which the cancel of an unknown class is kept: its booking may arrive later, by another way."""


Ends = Mapping[str, tuple[int, str, float]]
"""What the platform was told of the end of each class: the code, the message, the seconds that were sent."""


def asked_by(message: Cancel | Change) -> str:
    """Who asked for it, for the event of a class."""
    return Text("by {who}", who=message.by or PLATFORM)


def cancel(changes: Changes, message: Cancel, ends: Ends, unconfirmed: Collection[str]) -> None:
    """Cancel a class, its second airing and their revisions; the cancel of an unknown class is kept for its booking.

    If a streamer has the class, the answer waits for its confirmation; *unconfirmed* are the classes that wait for one.
    """
    class_id = message.class_id
    order = changes.orders.get(class_id)
    second = f"{class_id}{BACKUP}"
    for id_ in (second, *changes.revisions.get(second, ()), *changes.revisions.get(class_id, ())):
        if id_ in changes.orders and (id_.endswith(BACKUP) or changes.orders[id_].state not in BOOKING_OVER):
            _cancel(changes, changes.orders[id_], asked_by(message))
    if order is None:
        changes.await_cancel(class_id, None, changes.now + EARLY_S)
        changes.answer_cancel(class_id, errors.NOT_BOOKED.number, Text("it is not booked here"))
        changes.row(class_id, "cancel of an unknown class")
        changes.note("cancel of an unknown class", class_id=class_id, detail=asked_by(message))
    elif _cancel(changes, order, asked_by(message)):
        if not order.streamer:
            changes.answer_cancel(class_id, *EARLY)
    elif order.state is not BookingState.CANCELLED:
        is_refused = order.state is BookingState.REFUSED
        code = errors.NOT_BOOKED if is_refused else errors.ENDED
        why = Text("its booking was refused") if is_refused else Text("it is over")
        changes.answer_cancel(class_id, code.number, why)
    elif any((one.class_id, one.event) == (class_id, "ended") for one in changes.class_events):
        changes.answer_cancel(class_id, *EARLY)  # by a message before this one, of which *ends* knows nothing
    elif class_id in unconfirmed or (cancels, class_id) in changes.rows:
        changes.change(cancels, {"class_id": class_id}, {}, {"deliveries": Increment(1)})
    elif class_id not in ends and order.streamer:  # cancelled in the UI, and what was sent is not told yet
        changes.await_cancel(class_id, order.streamer, order.end_time)
        changes.release(order.streamer, class_id)
    else:
        changes.answer_cancel(class_id, *ends.get(class_id, (*EARLY, 0.0)))


EARLY = (0, Text("cancelled before anything was sent"))


def _cancel(changes: Changes, order: Order, by: str = "") -> bool:
    """Cancel a class or a revision, as *by* says; returns False if it is over."""
    class_id = order.class_id
    # A broken class is not over before its end: it may be on air where it was lost. One whose end has passed
    # on its streamer was aired, as its report is about to say.
    passed = order.end_time <= changes.now and order.state in {*ON_STREAMER, BookingState.BROKEN}
    if order.state in BOOKING_OVER or passed:
        changes.row(class_id, f"cancel of a class that is {order.state}")
        changes.note(Text("cancel of a class that is {state}", state=order.state), order, by)
        return False
    after = changes.move(order, BookingState.CANCELLED, order.code or 0)
    if order.state is BookingState.WAITING:
        changes.leaves.append((changes.waiting_key(order), class_id))
    if order.promised_at is None:
        changes.answer(order, errors.CANCELLED.number, errors.CANCELLED.meaning, order.deliveries)
    if order.streamer:
        changes.await_cancel(class_id, order.streamer, order.end_time)
        changes.release(order.streamer, class_id)
    else:
        end(changes, after, EARLY, NOTHING_SENT)
    changes.note("cancelled", order, by)
    changes.row(class_id, "cancel", where=order.streamer or "")
    return True


def cancel_second(changes: Changes, order: Order) -> None:
    """Cancel the second airing of a class that was refused: the platform was told that the class is not aired."""
    second = changes.orders.get(f"{order.class_id}{BACKUP}")
    if order.revises is None and second is not None and second.state not in BOOKING_OVER:
        _cancel(changes, second)


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
        end(changes, order, EARLY, NOTHING_SENT)
        changes.change(cancels, {"class_id": order.class_id}, {"streamer": None}, None)
        changes.note("cancelled before it was booked", order)
        changes.row(order.class_id, "cancelled before it was booked", code=code.number)
    return others


def resend_cancels(changes: Changes, unconfirmed: Sequence[CancelRow]) -> None:
    """Tell streamers again to release classes that were cancelled."""
    for row in unconfirmed:
        changes.release(row.streamer or "", row.class_id)
        changes.note("cancel told again", class_id=row.class_id, detail=Text("to {streamer}", streamer=row.streamer))
        changes.change(cancels, {"class_id": row.class_id}, {}, {"told_at": changes.now})


# The second airing of a class that has a push_url_backup: a class of its own, on another streamer if possible. Its id
# is the class's with a suffix that no class_id on the wire can have. So it is placed, moved, cited, cancelled and
# reported like any other class; only the platform gets no answer for it.


BACKUP_FIELD = "push_url_backup"


def secondary_id(class_id: str) -> str:
    """The id of the class's other airing: of the second for the first, and of the first for the second."""
    return class_id.removesuffix(BACKUP) if class_id.endswith(BACKUP) else f"{class_id}{BACKUP}"


def add_secondary(changes: Changes, order: Order, streamer: str, url: str, loads: dict[str, int]) -> None:
    """Place the second airing of a class that *streamer* airs, if the booking asks for it, on another streamer.

    If no other streamer is alive, *streamer* sends both.
    """
    booking = secondary_of(order.payload) if order.revises is None else None
    if booking is None or booking.class_id in changes.orders:
        return
    second = Order.of(booking)
    chosen = chosen_for(second.stem, elsewhere(loads, streamer), changes.settings.streamer_load_slack) or streamer
    loads[chosen] = loads.get(chosen, 0) + 1
    changes.book(booking)
    changes.place(replace(second, promised_at=changes.now), chosen, url)  # promised: the platform gets no second answer
    changes.note("placed", second, _on(chosen))
    changes.note("backup placed", order, _on(chosen))
    changes.row(second.class_id, "proceed", where=chosen, detail=second.stem)


def elsewhere(loads: Mapping[str, int], streamer: str | None) -> Mapping[str, int]:
    """The *loads* of all streamers but *streamer*; *loads* itself if there is no other."""
    return {name: load for name, load in loads.items() if name != streamer} or loads


def secondary_of(payload: str) -> Booking | None:
    """The booking of the second airing that *payload* asks for; None if it has no push_url_backup."""
    fields = from_json(payload)
    url = fields.pop(BACKUP_FIELD, None)
    if url is None:
        return None
    booking = Booking.model_validate({**fields, "push_url": url})
    return booking.under(secondary_id(booking.class_id))


ANSWERED = frozenset({BookingState.READY, BookingState.AIRED, BookingState.AIRED_WITH_GAPS, BookingState.BROKEN})
"""States that a class reaches only after the platform was answered with success."""

Loads = dict[str, int]
"""The number of classes of each living streamer; who places a class counts it here."""


@dataclass(frozen=True)
class Choice:
    """The streamers that classes can be moved to."""

    loads: Loads
    no: Mapping[str, set[str]]  # the streamers that have refused each class
    back: Mapping[str, str] = field(default_factory=dict)  # from whom each was taken before, who can have it back


def proceed(changes: Changes, going: Sequence[tuple[Order, str]], loads: Loads) -> None:
    """Choose a streamer for each class and tell it; refuse a class that has ended or finds no living streamer."""
    for order, url in going:
        if order.revises is not None:
            follow(changes, order, url)
        elif order.end_time <= changes.now:
            changes.refuse(order, errors.ENDED, Text("it ended before its rendition was there"))
        elif (streamer := chosen_for(order.stem, loads, changes.settings.streamer_load_slack)) is None:
            changes.refuse(order, errors.NO_STREAMER, labelled(order.stem, changes.no_streamer()), alarm=True)
        else:
            loads[streamer] += 1
            changes.place(order, streamer, url)
            changes.note("placed", order, _on(streamer))
            changes.row(order.class_id, "proceed", where=streamer, detail=order.stem)
            if f'"{BACKUP_FIELD}"' in order.payload:
                add_secondary(changes, order, streamer, url, loads)


def follow(changes: Changes, revision: Order, url: str) -> None:
    """Send a revision to the streamer of its class; refuse the change if no streamer has the class any more."""
    order = changes.orders.get(revision.revises or "")
    if order is None or order.state not in ON_STREAMER:
        its = {"class_id": revision.revises}
        is_over = order and Text("{class_id}: the class is {state}", **its, state=order.state)
        changes.refuse(revision, errors.ENDED, is_over or Text("{class_id}: nobody has booked it here", **its))
        return
    changes.place(revision, order.streamer or "", url)
    changes.row(revision.class_id, "proceed", where=order.streamer or "", detail=revision.stem)


def reassign(changes: Changes, orders: Sequence[Order], choice: Choice, why: str, *, refused: bool) -> None:
    """Take the classes from their streamers, and give each to another that has not refused it.

    If there is no other, a class goes back to the streamer that it was taken from before. The platform is not told. A
    class that no streamer can take is broken, with an alarm, if the platform was promised it; otherwise it is refused.
    *refused*: its streamer could not prepare it (False: it is lost or drained). A change goes where its class goes.
    """
    for order in sorted(orders, key=lambda order: order.revises is not None):  # so classes come first
        if changes.orders.get(order.class_id, order).state not in ON_STREAMER:
            continue  # it was the second airing of a class before it, which no streamer could take
        before = order.streamer or ""
        if order.revises is None:
            chosen = chosen_for(order.stem, open_to(changes, order, choice), changes.settings.streamer_load_slack)
            chosen = chosen or choice.back.get(order.class_id)
        else:
            its = changes.orders.get(order.revises)
            chosen = its.streamer if its is not None and its.state in ON_STREAMER else None
            if chosen == before:
                continue  # a class is changed where it is
        changes.take(order.class_id, before, order.placement, refused=refused)
        changes.release(before, order.class_id, order.placement)
        changes.announce(order, "interrupted", message=why)  # if it was on air
        if chosen is None:
            _nowhere(changes, order, why)
            continue
        if chosen in choice.loads:
            choice.loads[chosen] += 1
        changes.place(order, chosen, order.url or "")
        moved = changes.orders[order.class_id]
        where = Text("from {before} to {chosen}: {reason}", before=before, chosen=chosen, reason=why)
        changes.announce(moved, "moved", message=where, from_streamer=before)
        changes.note("moved", order, where)
        changes.row(order.class_id, "moved", where=chosen, detail=f"from {before}: {why}")


def open_to(changes: Changes, order: Order, choice: Choice) -> Mapping[str, int]:
    """The streamers to which a class can be moved, with their loads: that of its other airing if there is no other."""
    barred = {*choice.no.get(order.class_id, ()), order.streamer}
    loads = {name: load for name, load in choice.loads.items() if name not in barred}
    twin = changes.orders.get(secondary_id(order.class_id))
    return elsewhere(loads, twin.streamer if twin is not None and twin.state in ON_STREAMER else None)


def _nowhere(changes: Changes, order: Order, why: str) -> None:
    if order.revises is not None or (order.promised_at is None and order.state is not BookingState.READY):
        changes.refuse(order, errors.NO_STREAMER, why, alarm=True)
        cancel_second(changes, order)
        return
    code, text = errors.NOT_MOVED, Text("{reason}; no other streamer can take it", reason=why)
    # What its streamer says from now on, which has to release it, is of an older placement; of one that has not begun,
    # it has nothing to say, and no cancel waits for it.
    streamer = order.streamer if order.start_time <= changes.now else None
    changes.move(order, BookingState.BROKEN, code.number, why, placement=order.placement + 1, streamer=streamer)
    changes.alarm(code, labelled(order.class_id, text), order)
    changes.note("broken", order, labelled(code.number, text))
    changes.row(order.class_id, BookingState.BROKEN, code=code.number, detail=why)


def answer_of(order: Order) -> tuple[int, str] | None:
    """The code and the sentence with which a booking was answered; None if it was not answered yet."""
    if order.state is BookingState.REFUSED:
        return order.code or 0, order.message or ""
    if order.state is BookingState.CANCELLED:
        return errors.CANCELLED.number, errors.CANCELLED.meaning
    if order.promised_at is not None and order.promised_at >= order.end_time:  # it came too late the first time
        return errors.ENDED.number, errors.ENDED.meaning
    return (0, "prepared") if order.state in ANSWERED or order.promised_at is not None else None


def answer_again(changes: Changes, order: Order) -> None:
    """Answer a booking that was delivered again as before, if it was answered before."""
    if (known := answer_of(order)) is not None:
        changes.answer(order, *known)
    changes.count_delivery(order)
    changes.note("delivered again", order)
    changes.row(order.class_id, "delivered again", code=order.code or 0)


def refuse_other(changes: Changes, order: Order, why: str) -> None:
    """Refuse another booking of a class that is booked; the first one stands, and its answer is still to come."""
    code = errors.CONFLICT
    text = Text("{reason}; the first booking stands, it is {state}", reason=why, state=Text(order.state))
    answer = outgoing.answer(order.class_id, code.number, text)  # without the class: it is not that of the first one
    changes.sends.append(Outgoing(changes.settings.order_result_channel, OutgoingKind.CHANNEL, answer))
    changes.alarm(code, labelled(order.class_id, text), class_id=order.class_id)
    changes.note("another booking refused", order, labelled(code.number, text))
    changes.row(order.class_id, "refuse another booking", code=code.number, detail=text)
