"""Dead air: the findings in cached recordings, and the classes for which an alarm was raised."""

from collections.abc import Sequence

from sqlalchemy import Connection, select, update

from lectern.effects.rows import airings, cache
from lectern.effects.rows.cache import HERE
from lectern.effects.rows.many import among, these
from lectern.effects.rows.tables.streamer import classes, files, journal, tasks
from lectern.facts import Airing, Cached
from lectern.states import AiringState

TOLD = "dead air"
"""The event of a class whose recording has dead air."""

_NEEDED = HERE & (files.c.num_cite > 0)
_COMING = frozenset({AiringState.WAITING, AiringState.READY})


def unlooked(connection: Connection, now: float) -> Cached | None:
    """Of the recordings that nobody has looked through, the one whose class begins first; None if there is none."""
    found = cache.where(connection, _NEEDED & files.c.dead_air.is_(None))
    if not found:
        return None
    starts = {one.stem: one.start_time for one in reversed(airings.live(connection)) if one.end_time > now}
    return min((one for one in found if one.stem in starts), key=lambda one: starts[one.stem], default=None)


def looked(connection: Connection, row: Cached, warning: str) -> bool:
    """Note the *warning* of a look, empty for none; returns whether *row* is still the file that was looked through."""
    its = (files.c.id == row.stem) & HERE & (files.c.size_bytes == row.size_bytes)
    return bool(connection.execute(update(files).where(its).values(dead_air=warning)).rowcount)


def warning(connection: Connection, stem: str) -> str:
    """The dead air in a rendition, if a class needs it; empty if there is none."""
    found = select(files.c.dead_air).where(_NEEDED & (files.c.id == stem))
    return connection.execute(found).scalar() or ""


def coming(connection: Connection, limit: int | None = None) -> list[tuple[Airing, str]]:
    """The first classes that are not over and whose recordings have dead air, by their start, each with the warning."""
    has = _NEEDED & (files.c.dead_air != "")
    warnings = {
        str(row.id): str(row.dead_air) for row in connection.execute(select(files.c.id, files.c.dead_air).where(has))
    }
    if not warnings:
        return []
    theirs = airings.selected().where(
        airings.LIVE, airings.NO_REVISION, classes.c.video_id.in_(select(files.c.id).where(has))
    )
    found = airings.readable(connection.execute(theirs.order_by(tasks.c.start_time).limit(limit)))
    return [(one, warnings[one.stem]) for one in found if one.stem in warnings]


def untold(connection: Connection, now: float) -> list[tuple[Airing, str]]:
    """The classes with dead air that have not begun, each with the warning, if no alarm told of this recording yet."""
    found = [(one, why) for one, why in coming(connection) if one.state in _COMING and one.start_time > now]
    told = _told(connection, [one.class_id for one, _ in found]) if found else set()
    return [(one, why) for one, why in found if (one.class_id, one.stem) not in told]


def _told(connection: Connection, class_ids: Sequence[str]) -> set[tuple[str, str]]:
    """The classes among *class_ids* for which an alarm was raised, each with its recording of then."""
    events = journal.events
    wanted = select(events.c.class_id, events.c.stem).where(among(events.c.class_id), events.c.what == TOLD)
    return {(row.class_id, row.stem) for row in connection.execute(wanted, these(class_ids))}
