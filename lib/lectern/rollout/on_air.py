"""Classes that a stop of this host would harm: on a streamer, on air or due soon; on a teacher, not yet placed."""

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import text

from lectern.db.airings import epoch
from lectern.migrations.steps import shape
from lectern.rollout import playout
from lectern.rollout.backup import store
from lectern.rollout.backup.store import Store
from lectern.rollout.journal import RolloutJournal
from lectern.rollout.playout import HeldClasses
from lectern.rollout.result import at, shown, some
from lectern.rollout.spec import Spec
from lectern.rollout.takeover import old_database
from lectern.states import LIVE_AIRINGS, BookingState

_UNPLACED = frozenset({BookingState.RECEIVED, BookingState.WAITING, BookingState.PLACED})


def refusals(wanted: Spec, now: float) -> list[str]:
    """A sentence for the classes that a stop at *now* (epoch seconds) would harm; empty if there are none.

    An upgrade harms no class that the playout holds; a teacher's inbox keeps the messages that arrive during the stop.
    """
    held = _held(wanted)
    if wanted.role == "teacher":
        classes, why = [] if held else list(_of_teacher(wanted, now)), "not yet placed on a streamer, and due"
    else:
        classes, why = list(_of_streamer(wanted, now, wanted.quiet_minutes * 60, held)), "on air or due"
    what = f"{why} within {wanted.quiet_minutes:g} minutes{_unheld(held)}. Roll out after"
    return _told(classes, what, "with -e rollout_quiet_minutes=0 if only those count that are on air")


def cut_now(wanted: Spec, now: float) -> list[str]:
    """A sentence for the classes that a rollback at *now* (epoch seconds) would cut off; empty if there are none."""
    if wanted.role == "teacher":
        return []
    held = _held(wanted)
    what = f"on air, and would be cut{_unheld(held)}. Roll back after"
    return _told(list(_of_streamer(wanted, now, 0, held)), what, "now with -e even_on_air=true")


def _held(wanted: Spec) -> HeldClasses | None:
    """What the playout holds during the stop; None if this rollout replaces the old program, which has no playout."""
    if RolloutJournal.of(wanted).behind(wanted.id) is None:
        return None
    return playout.held(wanted) if wanted.role == "streamer" else HeldClasses()


def _told(classes: list[tuple[float, float, str]], what: str, otherwise: str) -> list[str]:
    if not classes:
        return []
    named = some(name for _, _, name in sorted(classes))
    return [f"{named}: {what} {at(max(until for _, until, _ in classes))}, or {otherwise}."]


def _unheld(held: HeldClasses | None) -> str:
    """Why the playout does not air the classes during the stop, as the end of a sentence."""
    if held is None:
        return ""
    return f", and the playout does not hold them ({held.why_none or 'the resident has not told it of them yet'})"


class ComingClass(NamedTuple):
    """A class that has not ended; *state* is None if no program of ours has seen it, *start* if it cannot be read."""

    class_id: str
    start: float | None
    end: float
    state: str | None


def coming(database: Store, role: str, now: float) -> Iterator[ComingClass]:
    """The classes in a database that are not over at *now* (epoch seconds); of a teacher's, in whatever state."""
    with database.reading() as connection:
        if role == "streamer":
            known = old_database.classes(connection)
            for row in old_database.tasks(connection):
                state = known[row.class_id].state if row.class_id in known else None
                end = epoch(row.end)
                if end is not None and end > now and (state is None or state in LIVE_AIRINGS):
                    yield ComingClass(row.class_id, epoch(row.start), end, state)
        elif shape(connection, "order_list") is not None:
            wanted = text("SELECT class_id, start_time, end_time, state FROM order_list WHERE end_time > :now")
            yield from (ComingClass(*row) for row in connection.execute(wanted, {"now": now}))


def _of_streamer(
    wanted: Spec, now: float, within_s: float, held: HeldClasses | None
) -> Iterator[tuple[float, float, str]]:
    for class_ in coming(store.of(wanted), wanted.role, now):
        is_held = held is not None and class_.class_id in held.classes
        if class_.start is not None and class_.start <= now + within_s and not is_held:
            yield class_.start, class_.end, f"class {shown(class_.class_id)} ({at(class_.start)} to {at(class_.end)})"


def _of_teacher(wanted: Spec, now: float) -> Iterator[tuple[float, float, str]]:
    for class_ in coming(store.of(wanted), wanted.role, now):
        if class_.start is not None and class_.start <= now + wanted.quiet_minutes * 60 and class_.state in _UNPLACED:
            yield class_.start, class_.end, f"class {shown(class_.class_id)} ({at(class_.start)}, {class_.state})"
