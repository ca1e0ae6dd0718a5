"""Which classes a stop of this host would harm: on air or due soon on a streamer, not yet placed on a teacher."""

from collections.abc import Iterator

from sqlalchemy import text

from lectern.effects.rows.old_times import epoch
from lectern.migrations.look import shape
from lectern.rollout import playout
from lectern.rollout.backup import store
from lectern.rollout.journal import Journal
from lectern.rollout.playout import Held
from lectern.rollout.takeover import old_tables
from lectern.rollout.wanted import Wanted
from lectern.rollout.wording import at, shown, some
from lectern.states import LIVE_AIRINGS, BookingState

_UNPLACED = frozenset({BookingState.RECEIVED, BookingState.WAITING, BookingState.PLACED})


def refusals(wanted: Wanted, now: float) -> list[str]:
    """A sentence for the classes that a stop at *now* (epoch seconds) would harm; none where there are none.

    From one release of ours to the next none is harmed that the playout holds; a teacher's inbox keeps what comes.
    """
    is_upgrade = Journal.of(wanted).behind(wanted.id) is not None
    held = playout.held(wanted) if is_upgrade and wanted.role == "streamer" else Held()
    if wanted.role == "teacher":
        found = [] if is_upgrade else sorted(_of_teacher(wanted, now))
    else:
        found = sorted(_of_streamer(wanted, now, wanted.quiet_minutes * 60, held))
    if not found:
        return []
    what = "on air or due" if wanted.role == "streamer" else "not yet placed on a streamer, and due"
    last = max(until for _, until, _ in found)
    why = _unheld(held) if is_upgrade else ""
    told = (
        f"{some([name for _, _, name in found], len(found))}: {what} within {wanted.quiet_minutes:g} minutes{why}. "
        f"Roll out after {at(last)}, or with -e rollout_quiet_minutes=0 where only those count that are on air."
    )
    return [told]


def cut_now(wanted: Wanted, now: float) -> list[str]:
    """A sentence for the classes that a rollback at *now* (epoch seconds) would cut; none if there are none."""
    if wanted.role == "teacher":
        return []
    is_bridged = Journal.of(wanted).behind(wanted.id) is not None
    held = playout.held(wanted) if is_bridged else Held()
    found = sorted(_of_streamer(wanted, now, 0, held))
    if not found:
        return []
    last = max(until for _, until, _ in found)
    why = _unheld(held) if is_bridged else ""
    told = (
        f"{some([name for _, _, name in found], len(found))}: on air, and would be cut{why}. Roll back after "
        f"{at(last)}, or now with -e even_on_air=true."
    )
    return [told]


def _unheld(held: Held) -> str:
    """Why the playout does not air them meanwhile."""
    return f", and the playout does not hold them ({held.why_none or 'the resident has not told it of them yet'})"


def _of_streamer(wanted: Wanted, now: float, within_s: float, held: Held) -> Iterator[tuple[float, float, str]]:
    soon = now + within_s
    with store.of(wanted).reading() as connection:
        known = old_tables.classes(connection)
        for row in old_tables.tasks(connection):
            start, end = epoch(row.start), epoch(row.end)
            state = known[row.class_id].state if row.class_id in known else None
            if (
                start is None
                or end is None
                or row.class_id in held.classes
                or (state is not None and state not in LIVE_AIRINGS)
            ):
                continue
            if start <= soon and end > now:
                yield start, end, f"class {shown(row.class_id)} ({at(start)} to {at(end)})"


def _of_teacher(wanted: Wanted, now: float) -> Iterator[tuple[float, float, str]]:
    soon = now + wanted.quiet_minutes * 60
    with store.of(wanted).reading() as connection:
        if shape(connection, "order_list") is None:
            return
        due = text(
            "SELECT class_id, start_time, end_time, state FROM order_list WHERE start_time <= :soon AND end_time > :now"
        )
        for class_id, start, end, state in connection.execute(due, {"soon": soon, "now": now}):
            if state in _UNPLACED:
                yield start, end, f"class {shown(class_id)} ({at(start)}, {state})"
