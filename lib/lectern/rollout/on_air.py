"""Classes that a stop of this host would harm: on a streamer, on air or due soon; on a teacher, not yet placed."""

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import text

from lectern.db.airings import epoch
from lectern.i18n import Text, msgid
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
        classes = [] if held else list(_of_teacher(wanted, now))
        pattern = msgid(
            "{classes}: not yet placed on a streamer, and due within {minutes:g} minutes{unheld}. Roll out after "
            "{until}, or with -e rollout_quiet_minutes=0 if only those count that are on air."
        )
    else:
        classes = list(_of_streamer(wanted, now, wanted.quiet_minutes * 60, held))
        pattern = msgid(
            "{classes}: on air or due within {minutes:g} minutes{unheld}. Roll out after {until}, or with "
            "-e rollout_quiet_minutes=0 if only those count that are on air."
        )
    return _told(pattern, classes, held, minutes=wanted.quiet_minutes)


def cut_now(wanted: Spec, now: float) -> list[str]:
    """A sentence for the classes that a rollback at *now* (epoch seconds) would cut off; empty if there are none."""
    if wanted.role == "teacher":
        return []
    held = _held(wanted)
    pattern = msgid(
        "{classes}: on air, and would be cut{unheld}. Roll back after {until}, or now with -e even_on_air=true."
    )
    return _told(pattern, list(_of_streamer(wanted, now, 0, held)), held)


def _held(wanted: Spec) -> HeldClasses | None:
    """What the playout holds during the stop; None if this rollout replaces the old program, which has no playout."""
    if RolloutJournal.of(wanted).behind(wanted.id) is None:
        return None
    return playout.held(wanted) if wanted.role == "streamer" else HeldClasses()


def _told(
    pattern: str, classes: list[tuple[float, float, str]], held: HeldClasses | None, **values: float
) -> list[str]:
    if not classes:
        return []
    named, until = some(name for _, _, name in sorted(classes)), at(max(until for _, until, _ in classes))
    return [Text(pattern, classes=named, until=until, unheld=_unheld(held), **values)]


def _unheld(held: HeldClasses | None) -> str:
    """Why the playout does not air the classes during the stop, as the end of a sentence."""
    if held is None:
        return ""
    why = held.why_none or Text("the resident has not told it of them yet")
    return Text(", and the playout does not hold them ({why})", why=why)


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
            yield (
                class_.start,
                class_.end,
                _named(class_.class_id, Text("{begin} to {end}", begin=at(class_.start), end=at(class_.end))),
            )


def _of_teacher(wanted: Spec, now: float) -> Iterator[tuple[float, float, str]]:
    for class_ in coming(store.of(wanted), wanted.role, now):
        if class_.start is not None and class_.start <= now + wanted.quiet_minutes * 60 and class_.state in _UNPLACED:
            yield class_.start, class_.end, _named(class_.class_id, f"{at(class_.start)}, {class_.state}")


def _named(class_id: str, what: str) -> str:
    return Text("class {class_id} ({what})", class_id=shown(class_id), what=what)
