"""Rows of a streamer as its flows write them, for tests that begin in the middle of a story."""

from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, insert

from flows.handling import Decide, DecideAll, change
from flows.host import Streamer
from lectern.changes import NEW, Granted, new_row
from lectern.effects.rows import airings, cache
from lectern.facts import Airing, Order
from lectern.messages import Booking, Message, Prepare
from lectern.model.tables.teacher import orders, streamers
from lectern.states import AiringState
from lectern.streamer_changes import Admitted, Reserved, StreamerChanges

M = TypeVar("M", bound=Message)


def add(connection: Connection, wanted: Prepare, state: AiringState, site: str, now: float) -> None:
    """A class that was taken."""
    airings.add_all(connection, [(Admitted(wanted, state), site)], now)


def granted(connection: Connection, claim: Granted, now: float, lost_at: float | None = None) -> None:
    """A streamer that was given its lease, and that is lost since then."""
    held = {"session": claim.session, "lease_s": claim.lease_s, "granted_at": now, "lost_at": lost_at}
    connection.execute(insert(streamers).values(name=claim.streamer, **held))


def booked(connection: Connection, booking: Booking, order: Order, now: float) -> None:
    """A booking about which much was decided."""
    connection.execute(insert(orders).values(dict(zip(NEW, new_row(booking, order, now), strict=True))))


def reserve(connection: Connection, root: Path, stem: str, size_bytes: int, url: str, now: float) -> None:
    """A download that was asked for."""
    cache.reserve(connection, root, Reserved(stem, size_bytes, url), now)


def did(connection: Connection, host: Streamer, decide: DecideAll[StreamerChanges, M], *messages: M) -> StreamerChanges:
    """Decide *messages*, and write what is decided."""

    def go(connection: Connection, changes: StreamerChanges) -> None:
        decide(connection, changes, messages)

    return change(connection, host, go)


def went(connection: Connection, host: Streamer, decide: Decide[StreamerChanges]) -> StreamerChanges:
    """Write what *decide* decides of no message."""
    return change(connection, host, decide)


def moved(connection: Connection, host: Streamer, one: Airing, state: AiringState) -> None:
    """A class that came to another state."""

    def go(_connection: Connection, changes: StreamerChanges) -> None:
        changes.move(one, state)

    went(connection, host, go)
