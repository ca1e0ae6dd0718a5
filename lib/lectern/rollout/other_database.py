"""A rollout that gives a host another database: no class that is still to come stays behind in the one before."""

import math

from sqlalchemy import text

from lectern.effects.rows.old_times import epoch
from lectern.migrations.look import shape
from lectern.rollout import standing
from lectern.rollout.backup import store
from lectern.rollout.backup.store import Store
from lectern.rollout.journal import Journal
from lectern.rollout.takeover import old_tables
from lectern.rollout.wanted import Wanted
from lectern.rollout.wording import shown, some
from lectern.states import LIVE_AIRINGS, BookingState

_OPEN = (BookingState.RECEIVED, BookingState.WAITING, BookingState.PLACED, BookingState.READY)


def refusal(wanted: Wanted, now: float) -> str | None:
    """A sentence for the classes that have not ended at *now* (epoch seconds) and that the new database does not have.

    None if there are none, or if this rollout replaces the old program, whose classes are taken over.
    """
    behind = Journal.of(wanted).behind(wanted.id)
    if behind is None or wanted.other_database:
        return None
    before, after = store.of(standing.stored(wanted.backups_dir / behind)), store.of(wanted)
    if before.shown == after.shown:
        return None
    left = _to_come(before, wanted.role, now) - _to_come(after, wanted.role, now)
    if not left:
        return None
    return (
        f"{some(shown(one) for one in sorted(left))}: booked in {before.shown}, and not in {after.shown}, in which the "
        f"new program would look. Keep the database of before, or bring its rows over first; or, if the platform is to "
        f"book these classes again, add -e rollout_other_database=true."
    )


def _to_come(found: Store, role: str, now: float) -> set[str]:
    if not found.exists():
        return set()
    with found.reading() as connection:
        if role == "streamer":
            known = old_tables.classes(connection)
            states = {name: one.state for name, one in known.items()}
            tasks = old_tables.tasks(connection)
            ends = {one.class_id: epoch(one.end) or -math.inf for one in tasks}
            live = {*LIVE_AIRINGS, None}
            return {name for name, end in ends.items() if end > now and states.get(name) in live}
        if shape(connection, "order_list") is None:
            return set()
        wanted = text("SELECT class_id, state FROM order_list WHERE end_time > :now")
        return {name for name, state in connection.execute(wanted, {"now": now}) if state in _OPEN}
