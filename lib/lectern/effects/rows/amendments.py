"""Gives a streamer's class the values of its revision; keeps which revisions wait for the playout's confirmation."""

from collections.abc import Sequence

from sqlalchemy import Connection, select, update

from lectern.effects.rows import airings, cache
from lectern.effects.rows.many import among, these
from lectern.facts import Airing
from lectern.model.tables.streamer import classes, tasks
from lectern.states import AiringState

_TASK = ("video_url", "push_url", "start_time", "end_time", "institution_id")
_CLASS = ("video_id", "site", "record_id")


def take_over(connection: Connection, one: Airing, revision: Airing, now: float) -> None:
    """Give the class *one* the times, push URL and rendition of its *revision*; its state stays."""
    of_class = select(*(classes.c[name] for name in _CLASS)).where(classes.c.class_id == revision.class_id)
    of_task = select(*(tasks.c[name] for name in _TASK)).where(tasks.c.class_id == revision.class_id)
    values = {**connection.execute(of_class).one()._mapping, "updated_at": now}
    if revision.start_time != one.start_time and one.state is AiringState.READY:
        values["run_id"] = None  # the run of its old time is cancelled
    task = {**connection.execute(of_task).one()._mapping}
    connection.execute(update(classes).where(classes.c.class_id == one.class_id).values(**values))
    connection.execute(update(tasks).where(tasks.c.class_id == one.class_id).values(**task))
    cache.cite(connection, revision.stem, 1, now)
    cache.uncite(connection, one.stem)


def unconfirmed(connection: Connection) -> list[Airing]:
    """The revisions whose classes have their content, and whose teacher still waits to hear that they are aired so."""
    return airings.readable(connection.execute(airings.selected().where(classes.c.unconfirmed_since.is_not(None))))


def wait(connection: Connection, revisions: Sequence[str], now: float | None) -> None:
    """Note since when *revisions* wait to be confirmed; None if they wait no more."""
    if revisions:
        its = update(classes).where(among(classes.c.class_id)).values(unconfirmed_since=now)
        connection.execute(its, these(revisions))
