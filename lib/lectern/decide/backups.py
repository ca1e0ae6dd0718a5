"""The second airing of a class that has a push_url_backup: a class of its own, on another streamer if possible.

Its id is the class's with a suffix that no class_id on the wire can have. So it is placed, moved, cited, cancelled
and reported like any other class; only the platform gets no answer for it.
"""

from collections.abc import Mapping
from dataclasses import replace

from pydantic_core import from_json

from lectern.changes import Changes
from lectern.decide.placement import place
from lectern.facts import Order
from lectern.messages import Booking
from lectern.states import BookingState
from lectern.wire import BACKUP

FIELD = "push_url_backup"
ON = frozenset({BookingState.PLACED, BookingState.READY})


def twin_id(class_id: str) -> str:
    """The id of the class's other airing: of the second for the first, and of the first for the second."""
    return class_id.removesuffix(BACKUP) if class_id.endswith(BACKUP) else f"{class_id}{BACKUP}"


def add(changes: Changes, order: Order, streamer: str, url: str, loads: dict[str, int]) -> None:
    """Place the second airing of a class that *streamer* airs, if the booking asks for it, on another streamer.

    If no other streamer is alive, *streamer* sends both.
    """
    booking = second_of(order.payload) if order.revises is None else None
    if booking is None or booking.class_id in changes.orders:
        return
    second = Order.of(booking)
    chosen = place([second.stem], elsewhere(loads, streamer), changes.settings.streamer_load_slack)[0] or streamer
    loads[chosen] = loads.get(chosen, 0) + 1
    changes.book(booking)
    changes.place(replace(second, promised_at=changes.now), chosen, url)  # promised: the platform gets no second answer
    changes.note("placed", second, f"on {chosen}")
    changes.note("backup placed", order, f"on {chosen}")
    changes.row(second.class_id, "proceed", where=chosen, detail=second.stem)


def apart(changes: Changes, order: Order, loads: Mapping[str, int]) -> Mapping[str, int]:
    """*loads* without the streamer that has the class's other airing, unless no other streamer is alive."""
    twin = changes.orders.get(twin_id(order.class_id))
    return elsewhere(loads, twin.streamer if twin is not None and twin.state in ON else None)


def elsewhere(loads: Mapping[str, int], streamer: str | None) -> Mapping[str, int]:
    """The *loads* of all streamers but *streamer*; *loads* itself if there is no other."""
    return {name: load for name, load in loads.items() if name != streamer} or loads


def second_of(payload: str) -> Booking | None:
    """The booking of the second airing that *payload* asks for; None if it has no push_url_backup."""
    if f'"{FIELD}"' not in payload:
        return None
    fields = from_json(payload)
    url = fields.pop(FIELD, None)
    if url is None:
        return None
    booking = Booking.model_validate({**fields, "push_url": url})
    return booking.under(twin_id(booking.class_id))
