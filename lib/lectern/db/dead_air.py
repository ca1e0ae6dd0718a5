"""Dead air: the findings in cached recordings, and the classes for which an alarm was raised."""

from collections.abc import Sequence

from sqlalchemy import Connection, case, exists, func, select, update

from lectern.db import airings, cache
from lectern.db.bulk import bind_list, in_list
from lectern.db.cache import HERE
from lectern.i18n import Text, joined
from lectern.model.facts import SHORT_S, SHORT_SHARE, Airing, Cached
from lectern.model.tables.streamer import classes, files, journal, tasks
from lectern.states import AiringState

TOLD = "recording faults"
"""The event of a class whose recording has dead air, or is too short."""

_NEEDED = HERE & (files.c.num_cite > 0)
_NOT_OVER = frozenset({AiringState.WAITING, AiringState.READY, AiringState.ON_AIR})


def unlooked(connection: Connection, now: float) -> Cached | None:
    """Of the recordings that nobody has looked through, the one whose class begins first; None if there is none."""
    rows = cache.where(connection, _NEEDED & files.c.dead_air.is_(None))
    if not rows:
        return None
    starts = {airing.stem: airing.start_time for airing in reversed(airings.live(connection)) if airing.end_time > now}
    return min((row for row in rows if row.stem in starts), key=lambda row: starts[row.stem], default=None)


def looked(connection: Connection, row: Cached, warning: str) -> bool:
    """Note the *warning* of a look, empty for none; returns whether *row* is still the file that was looked through."""
    unchanged = (files.c.id == row.stem) & HERE & (files.c.size_bytes == row.size_bytes)
    return bool(connection.execute(update(files).where(unchanged).values(dead_air=warning)).rowcount)


def warning(connection: Connection, airing: Airing) -> str:
    """The dead air in the recording of a class, if it is here, and how much too short it is; empty if all is well."""
    wanted = select(files.c.dead_air, files.c.duration_s).where(_NEEDED & (files.c.id == airing.stem))
    row = connection.execute(wanted).one_or_none()
    return "" if row is None else _said(row.dead_air, _short(airing, row.duration_s))


def coming(connection: Connection, limit: int | None = None) -> list[tuple[Airing, str]]:
    """The first classes that are not over and whose recordings have dead air or are too short, each with the warning.

    They are ordered by their start.
    """
    return [(airing, _said(places, short)) for airing, places, short in _faulty(connection, limit)]


def untold(connection: Connection, now: float) -> list[tuple[Airing, str]]:
    """The classes with dead air that have not begun, each with the warning, if no alarm has said the same yet.

    Also those on air whose recording is too short: their end may have been changed.
    """
    faulty = [fault for fault in _faulty(connection) if fault[0].end_time > now and fault[0].state in _NOT_OVER]
    warnings = [(airing, _said(places if airing.start_time > now else "", short)) for airing, places, short in faulty]
    alarmed = _told(connection, [airing.class_id for airing, _ in warnings]) if warnings else set()
    return [(airing, why) for airing, why in warnings if why and (airing.class_id, airing.stem, why) not in alarmed]


def _faulty(connection: Connection, limit: int | None = None) -> list[tuple[Airing, str, str]]:
    """The classes that are not over and whose recordings have a fault: the dead air, and how much is too short."""
    length = tasks.c.end_time - tasks.c.start_time
    allowed = case((SHORT_SHARE * length > SHORT_S, SHORT_SHARE * length), else_=SHORT_S)
    is_text = func.typeof(tasks.c.start_time) == "text"  # as an old program wrote it: SQL cannot count with it
    fault = (files.c.dead_air != "") | (files.c.duration_s < length - allowed) | is_text
    has = exists().where(_NEEDED, files.c.id == classes.c.video_id, fault).correlate(classes, tasks)
    wanted = airings.selected().where(airings.LIVE, airings.NO_REVISION, has)
    booked = airings.readable(connection.execute(wanted.order_by(tasks.c.start_time).limit(limit)))
    if not booked:
        return []
    renditions = select(files.c.id, files.c.dead_air, files.c.duration_s).where(in_list(files.c.id))
    rows = {row.id: row for row in connection.execute(renditions, bind_list({airing.stem for airing in booked}))}
    faults = [
        (airing, rows[airing.stem].dead_air or "", _short(airing, rows[airing.stem].duration_s)) for airing in booked
    ]
    return [fault for fault in faults if fault[1] or fault[2]]


def _short(airing: Airing, duration_s: float | None) -> str:
    lacks_s = airing.lacks_s(duration_s)
    return Text("it ends {lacks_s:length} before its class", lacks_s=lacks_s) if lacks_s else ""


def _said(places: str | None, short: str) -> str:
    return joined(filter(None, (places, short)))


def _told(connection: Connection, class_ids: Sequence[str]) -> set[tuple[str, str, str]]:
    """The alarms that were raised for the classes *class_ids*: class, recording, and warning."""
    events = journal.events
    columns = (events.c.class_id, events.c.stem, events.c.detail)
    wanted = select(*columns).where(in_list(events.c.class_id), events.c.what == TOLD)
    return {(row.class_id, row.stem, row.detail) for row in connection.execute(wanted, bind_list(class_ids))}
