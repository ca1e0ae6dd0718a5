"""Dead air: the findings in cached recordings, and the classes for which an alarm was raised."""

from collections.abc import Sequence

from sqlalchemy import Connection, case, exists, func, select, update

from lectern.db import airings, cache
from lectern.db.bulk import bind_list, in_list
from lectern.db.cache import HERE
from lectern.i18n import Text
from lectern.model.facts import SHORT_S, SHORT_SHARE, Airing, Cached
from lectern.model.tables.streamer import classes, files, journal, tasks
from lectern.states import AiringState

TOLD = "recording faults"
"""The event of a class whose recording has dead air, or is too short."""

_NEEDED = HERE & (files.c.num_cite > 0)
_NOT_OVER = frozenset({AiringState.WAITING, AiringState.READY, AiringState.ON_AIR})


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


def warning(connection: Connection, one: Airing) -> str:
    """The dead air in the recording of a class, if it is here, and how much too short it is; empty if all is well."""
    found = select(files.c.dead_air, files.c.duration_s).where(_NEEDED & (files.c.id == one.stem))
    row = connection.execute(found).one_or_none()
    return "" if row is None else _said(row.dead_air, _short(one, row.duration_s))


def coming(connection: Connection, limit: int | None = None) -> list[tuple[Airing, str]]:
    """The first classes that are not over and whose recordings have dead air or are too short, each with the warning.

    They are ordered by their start.
    """
    return [(one, _said(places, short)) for one, places, short in _faulty(connection, limit)]


def untold(connection: Connection, now: float) -> list[tuple[Airing, str]]:
    """The classes with dead air that have not begun, each with the warning, if no alarm has said the same yet.

    Also those on air whose recording is too short: their end may have been changed.
    """
    faulty = [one for one in _faulty(connection) if one[0].end_time > now and one[0].state in _NOT_OVER]
    found = [(one, _said(places if one.start_time > now else "", short)) for one, places, short in faulty]
    told = _told(connection, [one.class_id for one, _ in found]) if found else set()
    return [(one, why) for one, why in found if why and (one.class_id, one.stem, why) not in told]


def _faulty(connection: Connection, limit: int | None = None) -> list[tuple[Airing, str, str]]:
    """The classes that are not over and whose recordings have a fault: the dead air, and how much is too short."""
    length = tasks.c.end_time - tasks.c.start_time
    allowed = case((SHORT_SHARE * length > SHORT_S, SHORT_SHARE * length), else_=SHORT_S)
    is_text = func.typeof(tasks.c.start_time) == "text"  # as an old program wrote it: SQL cannot count with it
    fault = (files.c.dead_air != "") | (files.c.duration_s < length - allowed) | is_text
    has = exists().where(_NEEDED, files.c.id == classes.c.video_id, fault).correlate(classes, tasks)
    wanted = airings.selected().where(airings.LIVE, airings.NO_REVISION, has)
    found = airings.readable(connection.execute(wanted.order_by(tasks.c.start_time).limit(limit)))
    if not found:
        return []
    its = select(files.c.id, files.c.dead_air, files.c.duration_s).where(in_list(files.c.id))
    rows = {row.id: row for row in connection.execute(its, bind_list({one.stem for one in found}))}
    told = [(one, rows[one.stem].dead_air or "", _short(one, rows[one.stem].duration_s)) for one in found]
    return [one for one in told if one[1] or one[2]]


def _short(one: Airing, duration_s: float | None) -> str:
    lacks_s = one.lacks_s(duration_s)
    return Text("it ends {lacks_s:length} before its class", lacks_s=lacks_s) if lacks_s else ""


def _said(places: str | None, short: str) -> str:
    return "; ".join(filter(None, (places, short)))


def _told(connection: Connection, class_ids: Sequence[str]) -> set[tuple[str, str, str]]:
    """The alarms that were raised for the classes *class_ids*: class, recording, and warning."""
    events = journal.events
    columns = (events.c.class_id, events.c.stem, events.c.detail)
    wanted = select(*columns).where(in_list(events.c.class_id), events.c.what == TOLD)
    return {(row.class_id, row.stem, row.detail) for row in connection.execute(wanted, bind_list(class_ids))}
