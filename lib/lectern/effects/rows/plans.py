"""Which classes of a streamer have a run that will air them, and which still need one."""

from collections.abc import Collection

from sqlalchemy import Connection, func, select, update

from lectern.effects.rows import airings
from lectern.effects.rows.airings import Airing
from lectern.effects.rows.tables.streamer import classes, tasks
from lectern.states import AiringState


def scheduled(connection: Connection, class_id: str, run_id: str) -> None:
    """The run that will air the class."""
    connection.execute(update(classes).where(classes.c.class_id == class_id).values(run_id=run_id))


def unscheduled(connection: Connection, before: float, limit: int = 1000, but: Collection[str] = ()) -> list[Airing]:
    """The next *limit* classes that are ready since *before* (epoch seconds) and have no run, by their start.

    Those of *but* are left out.
    """
    wanted = (
        airings.selected()
        .where(
            classes.c.state == AiringState.READY,
            classes.c.run_id.is_(None),
            classes.c.class_id.not_in(list(but)),
            func.coalesce(classes.c.updated_at, 0) <= before,
        )
        .order_by(tasks.c.start_time)
        .limit(limit)
    )
    return airings.readable(connection.execute(wanted))


def planned(connection: Connection) -> dict[str, str]:
    """The class of each run that is to air one, or airs one, by their start."""
    wanted = (
        select(classes.c.run_id, classes.c.class_id)
        .select_from(classes.join(tasks, classes.c.class_id == tasks.c.class_id))
        .where(classes.c.state.in_([AiringState.READY, AiringState.ON_AIR]), classes.c.run_id.is_not(None))
        .order_by(tasks.c.start_time)
    )
    return {str(row.run_id): str(row.class_id) for row in connection.execute(wanted)}
