"""What the looks through the cached recordings found, and which classes had their warning."""

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, select, update

from lectern.effects.rows import airings, cache, events
from lectern.effects.rows.cache import HERE
from lectern.effects.rows.tables.streamer import files, journal
from lectern.facts import Airing, Cached
from lectern.states import AiringState

TOLD = "dead air"
"""The event of a class whose recording has dead air."""

_NEEDED = HERE & (files.c.num_cite > 0)
_COMING = frozenset({AiringState.WAITING, AiringState.READY})


def unlooked(connection: Connection, now: float) -> Cached | None:
    """The recording that nobody has looked through, and whose class begins first; None if there is none."""
    found = cache.where(connection, _NEEDED & files.c.dead_air.is_(None))
    if not found:
        return None
    ends = {one.stem: one.end_time for one in reversed(airings.live(connection)) if one.end_time > now}
    return min((one for one in found if one.stem in ends), key=lambda one: ends[one.stem], default=None)


def looked(connection: Connection, row: Cached, warning: str) -> bool:
    """Note what a look found, empty for nothing; returns whether *row* is still what was looked through."""
    its = (files.c.id == row.stem) & HERE & (files.c.size_bytes == row.size_bytes)
    return bool(connection.execute(update(files).where(its).values(dead_air=warning)).rowcount)


def of(connection: Connection, classes: Iterable[Airing]) -> Mapping[str, str]:
    """What the recordings of *classes* have of dead air, by class; those that have none are not among them."""
    found = select(files.c.id, files.c.dead_air).where(_NEEDED & (files.c.dead_air != ""))
    warnings = {str(row.id): str(row.dead_air) for row in connection.execute(found)}
    return {one.class_id: warnings[one.stem] for one in classes if one.stem in warnings} if warnings else {}


def untold(connection: Connection, now: float) -> list[tuple[Airing, str]]:
    """The classes with dead air that have not begun, and for which no alarm was raised yet, each with the warning."""
    if connection.execute(select(files.c.id).where(_NEEDED & (files.c.dead_air != "")).limit(1)).first() is None:
        return []
    coming = [one for one in airings.live(connection) if one.state in _COMING and one.start_time > now]
    warnings = of(connection, coming)
    told = events.known(connection, journal, TOLD, list(warnings))
    return [(one, warnings[one.class_id]) for one in coming if one.class_id in warnings.keys() - told]
