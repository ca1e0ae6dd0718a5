"""The status of a teacher's database: counts, transcodings under way, waiting messages, the next class."""

from collections import Counter
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, func, literal, select

from lectern.effects.rows import bookings, inbox, incidents, outbox, renditions, timetable, transcodings
from lectern.model.tables import teacher as teacher_tables
from lectern.states import BookingState
from lectern.told import Booked

NEAREST = 5
"""Number of renditions under way that are shown, the nearest to their deadline."""

_STATES = frozenset(map(str, BookingState))


def of_teacher(connection: Connection, now: float) -> dict[str, Any]:
    """Counts of bookings and renditions, transcodings under way, open incidents, and what waits in inbox and outbox."""
    journal = teacher_tables.journal
    oldest = outbox.oldest_unsent(connection, journal)
    waiting = bookings.oldest_waiting(connection)
    under_way = sorted(transcodings.under_way(connection), key=lambda one: one.deadline or float("inf"))
    following = timetable.following(connection, now)
    by_state = Counter[str]()
    for (state, _), number in bookings.counts(connection, now).items():
        by_state[state] += number
    return {
        "bookings": dict(by_state),
        "oldest_waiting": None if waiting is None else {"class_id": waiting[0], "s": round(now - waiting[1], 1)},
        "incidents": incidents.open_now(connection, journal),
        "renditions": dict(renditions.counts(connection)),
        "under_way_number": len(under_way),
        "under_way": [
            {
                "rendition": one.stem,
                "backend": one.backend,
                "attempt": one.attempt,
                "slack_s": None if one.deadline is None else round(one.deadline - now, 1),
            }
            for one in under_way[:NEAREST]
        ],
        "next": None if following is None else _next(following, now),
        "booked": bookings.having(connection, now),
        "inbox": inbox.waiting(connection, journal),
        "oldest_unsent_s": None if oldest is None else round(now - oldest, 1),
    }


def _next(one: Booked, now: float) -> dict[str, Any]:
    return {"class_id": one.class_id, "streamer": one.streamer, "state": one.state, "in_s": one.start_time - now}


def by_hour(connection: Connection, since: float, hours: int) -> list[tuple[int, BookingState, int]]:
    """Bookings by the hour in which they came and by state: (hour from *since*, epoch seconds; state; number).

    A state that nobody knows, as a newer release may have written it, is left out.
    """
    orders = teacher_tables.orders
    came = orders.c.received_at
    hour = _hour(came, since, 0, hours + 1)
    wanted = select(hour, orders.c.state, func.count()).where(came >= since).group_by(hour, orders.c.state)
    found = [one for one in connection.execute(wanted) if one[1] in _STATES]
    return [(int(at), BookingState(state), int(number)) for at, state, number in found]


def _hour(came: ColumnElement[float], since: float, first: int, end: int) -> ColumnElement[int]:
    """The number of the hour, in [*first*, *end*), by bisection, because SQLite and PostgreSQL round differently."""
    if end - first == 1:
        return literal(first)
    middle = (first + end) // 2
    earlier, later = _hour(came, since, first, middle), _hour(came, since, middle, end)
    return case((came < since + 3600 * middle, earlier), else_=later)
