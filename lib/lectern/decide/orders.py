"""What is decided about a batch of bookings and cancels."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lectern.changes import Changes
from lectern.decide.attempts import Limits
from lectern.decide.booking import Before, Verdict, plan
from lectern.decide.cancels import cancel, without_cancelled
from lectern.decide.verdicts import Loads, answer_again, proceed, refuse_other
from lectern.facts import Order, Rendition, RenditionKey, Slot
from lectern.messages import Booking, Cancel
from lectern.states import BookingState


@dataclass(frozen=True)
class Facts:
    """What the database says of the renditions, streams and streamers that the bookings are about."""

    early: Collection[str]
    """Classes whose cancel arrived before their booking."""

    renditions: Mapping[RenditionKey, Rendition]
    taken: Mapping[str, Sequence[Slot]]
    """The live classes of each stream."""

    loads: Loads


def decide(
    changes: Changes, booked: Sequence[Booking], cancelled: Sequence[Cancel], facts: Facts, limits: Limits
) -> None:
    """Decide bookings in their order, then cancels; ``changes.orders`` has the classes that are booked already."""
    others = without_cancelled(changes, booked, facts.early) if facts.early else booked
    before = Before(known(changes.orders), facts.renditions, facts.taken)
    made = plan(others, before, limits, changes.now)
    going: list[tuple[Order, str]] = []
    for verdict in made.verdicts:
        order = changes.book(verdict.booking)
        if verdict.state is BookingState.PLACED:
            going.append((order, verdict.url or ""))
        elif verdict.state is BookingState.WAITING:
            _wait(changes, order)
        else:
            _refuse(changes, order, verdict)
    proceed(changes, going, facts.loads)
    for attempt in made.attempts:
        changes.begun.append(attempt)
        changes.note("transcoding begins", stem=attempt.stem, detail=f"{attempt.backend}, attempt {attempt.attempt}")
    for again in made.again:
        order = changes.orders[again.class_id]
        if again.refusal is None:
            answer_again(changes, order)
        else:
            refuse_other(changes, order, again.refusal)
    for message in cancelled:
        cancel(changes, message)


def known(orders: Mapping[str, Order]) -> dict[str, Sequence[str]]:
    """The payloads of each class in *orders*: as it was first booked, and as it is since its changes."""
    return {
        class_id: (order.payload,) if order.booked is None else (order.booked, order.payload)
        for class_id, order in orders.items()
    }


def _wait(changes: Changes, order: Order) -> None:
    changes.move(order, BookingState.WAITING)
    changes.joins[changes.waiting_key(order)].append(order.class_id)
    changes.note("waits", order)
    changes.row(order.class_id, "wait", detail=order.stem)


def _refuse(changes: Changes, order: Order, verdict: Verdict) -> None:
    assert verdict.code is not None  # the table gives every refusal its code
    changes.refuse(order, verdict.code, verdict.message, alarm=verdict.alarm)
