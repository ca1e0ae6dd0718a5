"""Plans of a streamer: which classes have a run, which still need a run, and what is to be downloaded next."""

from collections.abc import Collection

from sqlalchemy import Connection, func, select, update

from lectern.effects.rows import airings
from lectern.facts import Airing
from lectern.model.tables.streamer import classes, files, tasks
from lectern.states import AiringState, FileState


def scheduled(connection: Connection, class_id: str, run_id: str) -> None:
    """Note the run that will air the class."""
    connection.execute(update(classes).where(classes.c.class_id == class_id).values(run_id=run_id))


def unscheduled(connection: Connection, before: float, limit: int = 1000, but: Collection[str] = ()) -> list[Airing]:
    """The next *limit* classes that are ready since *before* (epoch seconds) and have no run, by their start.

    Leaves out the classes of *but*.
    """
    wanted = (
        airings.selected()
        .where(
            classes.c.state == AiringState.READY,
            classes.c.run_id.is_(None),
            airings.NO_REVISION,
            classes.c.class_id.not_in(list(but)),
            func.coalesce(classes.c.updated_at, 0) <= before,
        )
        .order_by(tasks.c.start_time)
        .limit(limit)
    )
    return airings.readable(connection.execute(wanted))


def planned(connection: Connection) -> dict[str, str]:
    """The class of each run that airs a class, or is to do so, ordered by the start of the class."""
    wanted = (
        select(classes.c.run_id, classes.c.class_id)
        .select_from(classes.join(tasks, classes.c.class_id == tasks.c.class_id))
        .where(classes.c.state.in_([AiringState.READY, AiringState.ON_AIR]), classes.c.run_id.is_not(None))
        .order_by(tasks.c.start_time)
    )
    return {str(row.run_id): str(row.class_id) for row in connection.execute(wanted)}


def unfetched(connection: Connection, limit: int, but: Collection[str] = ()) -> list[tuple[str, str | None]]:
    """The next *limit* recordings to download, each with its run, by the start of the first class that waits for it.

    A class on air that has lost its file waits for it, too. Leaves out the recordings of *but*.
    """
    waits = (classes.c.video_id == files.c.id) & classes.c.state.in_([AiringState.WAITING, AiringState.ON_AIR])
    needed_at = func.min(tasks.c.start_time)
    wanted = (
        select(files.c.id, files.c.run_id)
        .select_from(files.outerjoin(classes, waits).outerjoin(tasks, tasks.c.class_id == classes.c.class_id))
        .where(files.c.state == FileState.DOWNLOADING, files.c.id.not_in(list(but)))
        .group_by(files.c.id, files.c.run_id)
        .order_by(needed_at.is_(None), needed_at, files.c.id)
        .limit(limit)
    )
    return [(str(row.id), row.run_id) for row in connection.execute(wanted)]


def begun_by(connection: Connection, stem: str, run_id: str) -> None:
    """Note the run that downloads a rendition."""
    its = (files.c.id == stem) & (files.c.state == FileState.DOWNLOADING)
    connection.execute(update(files).where(its).values(run_id=run_id))


def tried(connection: Connection, stem: str) -> int:
    """Count one more run of a download; returns the number of its runs so far, 0 if it is wanted no more."""
    connection.execute(update(files).where(files.c.id == stem).values(tries=func.coalesce(files.c.tries, 0) + 1))
    return int(connection.execute(select(files.c.tries).where(files.c.id == stem)).scalar_one_or_none() or 0)
