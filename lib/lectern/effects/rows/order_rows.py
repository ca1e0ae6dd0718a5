"""Rows of bookings, as values."""

import logging
from collections.abc import Iterable
from typing import Any

from lectern.facts import Order
from lectern.states import BookingState, Resolution

log = logging.getLogger("lectern")


def as_order(row: Any) -> Order:  # noqa: ANN401 (a row of SQLAlchemy)
    """A booking; raises ValueError if its row has a word that nobody knows."""
    class_id, state, payload, record_id, resolution, *rest = row
    size = Resolution(resolution) if resolution else None
    return Order(class_id, BookingState(state), payload, record_id, size, *rest)


def as_orders(rows: Iterable[Any]) -> list[Order]:
    """One odd row hides no other."""
    found = []
    for row in rows:
        try:
            found.append(as_order(row))
        except ValueError as error:
            log.error("%s: its booking cannot be read, and is passed over: %s", row.class_id, error)
    return found
