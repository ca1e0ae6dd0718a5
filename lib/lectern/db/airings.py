"""The classes of a streamer: which rendition each cites, when it is aired, which run airs it, what became of it."""

import math
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, Select, case, exists, func, literal_column, select, update

from lectern import errors
from lectern.db import cache, events
from lectern.db.cache import HERE
from lectern.db.engine import bind_list, in_list
from lectern.errors import CallAPerson
from lectern.i18n import Text, joined, msgid
from lectern.model.facts import Airing, Cached, Needed
from lectern.model.tables.shared import sentence
from lectern.model.tables.streamer import classes, files, tasks
from lectern.states import LIVE_AIRINGS, AiringState, FileState
from lectern.wire.fields import REVISION

BEYOND = 4e9
"""Epoch seconds that no message may reach (the year 2096)."""

SHORT_S, SHORT_SHARE = 60.0, 0.05
"""Seconds, or share of its class, by which a recording may be shorter than its class without a warning."""


def epoch(value: object) -> float | None:
    """The epoch seconds that *value* means: a number, or a text that holds one or a date with a time of day.

    A date without a zone is the host's local time. None for anything else, and for numbers that are no class's time.
    """
    if isinstance(value, str):
        text = value.strip()
        try:
            seconds = datetime.fromisoformat(text).timestamp() if ":" in text else float(text)
        except (ValueError, OverflowError, OSError):
            return None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        return None
    return seconds if math.isfinite(seconds) and 0 < seconds < BEYOND else None


_COLUMNS = (
    *(classes.c[name] for name in ("class_id", "video_id", "state")),
    *(tasks.c[name] for name in ("push_url", "start_time", "end_time")),
    *(classes.c[name] for name in ("record_id", "run_id", "code")),
    sentence(classes, "message"),
    *(classes.c[name] for name in ("placement", "lost_at", "released_at")),
    *(tasks.c[name] for name in ("video_url", "institution_id")),
)
_JOINED = classes.join(tasks, classes.c.class_id == tasks.c.class_id)

_RELEASED = select(classes.c.class_id, classes.c.placement).where(in_list(classes.c.class_id), classes.c.video_id == "")

NO_REVISION = classes.c.class_id.not_like(f"%{REVISION}%")
"""Selects the classes without their revisions, which are never aired themselves."""


def selected() -> Select[Any]:
    """A query of all classes, with the columns that `readable` reads."""
    return select(*_COLUMNS).select_from(_JOINED)


_BY_ID = selected().where(in_list(classes.c.class_id))


def _airing(row) -> Airing:  # type: ignore[no-untyped-def]  # noqa: ANN001 (a row of SQLAlchemy)
    class_id, stem, state, push_url, start, end, *rest, lost_at, released_at, video_url, institution = row
    known = AiringState(state or AiringState.WAITING)
    rest += [lost_at is not None, released_at is None, video_url, institution]
    return Airing(class_id, stem, known, push_url, _seconds(row, start), _seconds(row, end), *rest)


def _seconds(row, value: object) -> float:  # type: ignore[no-untyped-def]  # noqa: ANN001 (a row of SQLAlchemy)
    """The epoch seconds of a time that an old program may have written; may be unreadable if the class is over."""
    seconds = epoch(value)
    if seconds is None and row.state in LIVE_AIRINGS:
        raise CallAPerson(
            "{class_id}: task_list has {value:.60} for a time. Write epoch seconds there.",
            class_id=row.class_id,
            value=repr(value),
        )
    return seconds or 0.0


def readable(rows: Iterable[Any]) -> list[Airing]:
    """The classes in *rows*, without those that cannot be read, which `unreadable` lists with the reason."""
    airings: list[Airing] = []
    for row in rows:
        with suppress(CallAPerson):
            airings.append(_airing(row))
    return airings


def _is_odd(time: ColumnElement[Any]) -> ColumnElement[bool]:
    return ~(func.typeof(time).in_(["real", "integer"]) & (time > 0) & (time < BEYOND))


_ODD = selected().where(classes.c.state.in_(LIVE_AIRINGS), _is_odd(tasks.c.start_time) | _is_odd(tasks.c.end_time))
"""The few rows among which are those that cannot be read; it is asked every few seconds, while the table is long."""


def unreadable(connection: Connection) -> dict[str, str]:
    """The classes that are not over and whose rows cannot be read, each with the reason and what to do."""
    reasons: dict[str, str] = {}
    for row in connection.execute(_ODD):
        try:
            _airing(row)
        except CallAPerson as error:
            reasons[row.class_id] = error.message
    return reasons


def by_id(connection: Connection, class_ids: Sequence[str]) -> dict[str, Airing]:
    """The classes among *class_ids* that this streamer knows."""
    return {row.class_id: _airing(row) for row in connection.execute(_BY_ID, bind_list(class_ids))}


def where(connection: Connection, such: ColumnElement[bool], limit: int | None = None) -> list[Airing]:
    """The first *limit* classes that fulfil *such*, ordered by their start; without those that cannot be read."""
    return readable(connection.execute(selected().where(such).order_by(tasks.c.start_time).limit(limit)))


def citing(connection: Connection, stem: str, states: Collection[AiringState]) -> list[Airing]:
    """The classes in one of *states* that cite the rendition *stem*, ordered by their start."""
    return where(connection, (classes.c.video_id == stem) & classes.c.state.in_(states))


_PROMISED = (classes.c.state == AiringState.REFUSED) & classes.c.lost_at.is_not(None)

LIVE = classes.c.state.in_(LIVE_AIRINGS) | _PROMISED
"""The rows of classes that are not over.

A class that was refused because its file was lost counts until its teacher takes it away: it was promised."""


def live(connection: Connection, begins_before: float = math.inf) -> list[Airing]:
    """The classes that are not over and begin before then (epoch seconds), by their start."""
    such = LIVE & NO_REVISION
    if begins_before < math.inf:
        such &= (tasks.c.start_time < begins_before) | (func.typeof(tasks.c.start_time) == "text")
    return [airing for airing in where(connection, such) if airing.start_time < begins_before]


def live_ids(connection: Connection) -> set[str]:
    """The classes that are to be aired here, or may be again, including those whose rows cannot be read."""
    return set(connection.execute(select(classes.c.class_id).select_from(_JOINED).where(LIVE)).scalars())


def waiting(connection: Connection) -> list[Airing]:
    """The classes that wait for their recording, and revisions that do, by their start."""
    return where(connection, classes.c.state == AiringState.WAITING)


def due(connection: Connection, started_before: float, ends_after: float) -> list[Airing]:
    """The classes to be aired that begin before *started_before* and end after *ends_after* (epoch seconds)."""
    coming = [AiringState.WAITING, AiringState.READY, AiringState.ON_AIR]  # the recording of one that waits may be late
    wanted_state = classes.c.state.in_(coming) | _PROMISED
    began = (tasks.c.start_time <= started_before) | (func.typeof(tasks.c.start_time) == "text")
    goes_on = (tasks.c.end_time > ends_after) | (func.typeof(tasks.c.end_time) == "text")
    airings = where(connection, wanted_state & began & goes_on & NO_REVISION)
    # An old program's times can be texts, which SQL does not compare with numbers.
    return [airing for airing in airings if airing.start_time <= started_before and airing.end_time > ends_after]


def needed(connection: Connection, now: float, begins_before: float = math.inf) -> list[Needed]:
    """The room in the cache that classes need which are not over at *now* and begin before then, and until when."""
    coming = [airing for airing in live(connection, begins_before) if airing.end_time > now]
    rows = cache.by_stem(connection, {airing.stem for airing in coming})
    sized = [(airing, rows[airing.stem]) for airing in coming if airing.stem in rows]
    return [
        Needed(airing.stem, row.size_bytes, airing.end_time, airing.start_time, row.duration_s) for airing, row in sized
    ]


def on_air(connection: Connection) -> int:
    """Number of classes that are on air."""
    return connection.execute(select(func.count()).where(classes.c.state == AiringState.ON_AIR)).scalar_one()


_CITES = (classes.c.state.in_(LIVE_AIRINGS) | classes.c.state.is_(None)) & classes.c.released_at.is_(None)


_CITATIONS = select(classes.c.video_id, func.count()).where(_CITES).group_by(classes.c.video_id)
# Found by their rendition: SQLite would look through all live classes for the state.
_CITATIONS_OF = (
    select(classes.c.video_id, func.count().filter(_CITES))
    .where(in_list(classes.c.video_id))
    .group_by(classes.c.video_id)
)


def citations(connection: Connection, stems: Iterable[str] | None = None) -> dict[str, int]:
    """Number of live classes that cite each rendition, or each of *stems*: the right value of ``num_cite``."""
    counted, given = (_CITATIONS, {}) if stems is None else (_CITATIONS_OF, bind_list(stems))
    return {str(stem): int(number) for stem, number in connection.execute(counted, given)}


def over(connection: Connection, before: float) -> list[Airing]:
    """The classes that ended before *before* (epoch seconds) and still cite their rendition."""
    ended = (tasks.c.end_time < before) | (func.typeof(tasks.c.end_time) == "text")
    return [airing for airing in where(connection, _CITES & ended) if airing.end_time < before][:1000]


def latest_url(connection: Connection, stem: str) -> str | None:
    """The URL of a rendition in the youngest booking that cites it: an earlier signed URL may have expired.

    A class on air, or a broken one, was booked before those that have not begun, although it changed its state later.
    Classes that got ready together are told apart by the order in which they came.
    """
    has_begun = classes.c.state.in_([AiringState.ON_AIR, AiringState.BROKEN])
    rowid = literal_column("class_list.rowid", Integer)
    wanted = (
        select(tasks.c.video_url)
        .select_from(_JOINED)
        .where(classes.c.video_id == stem, classes.c.state.in_(LIVE_AIRINGS), tasks.c.video_url.is_not(None))
        .order_by(has_begun, classes.c.updated_at.desc(), rowid.desc())
        .limit(1)
    )
    url = connection.execute(wanted).scalar_one_or_none()
    return None if url is None else str(url)


def push_urls(connection: Connection) -> list[str]:
    """The push URLs of all classes that were not refused."""
    taken = select(tasks.c.push_url).select_from(_JOINED).where(classes.c.state != AiringState.REFUSED)
    return [str(url) for url in connection.execute(taken.distinct()).scalars() if url is not None]


def released_before(connection: Connection, class_ids: Sequence[str]) -> dict[str, int]:
    """The classes among *class_ids* that were released before they came, each with its highest released placement."""
    return {row.class_id: row.placement for row in connection.execute(_RELEASED, bind_list(class_ids))}


def unconfirmed(connection: Connection) -> list[Airing]:
    """The revisions whose classes have their content, and whose teacher still waits to hear that they are aired so."""
    return where(connection, classes.c.unconfirmed_since.is_not(None))


def remade(connection: Connection, root: Path, stem: str, size_bytes: int, mtime: float) -> None:
    """Note the new size and mtime of the file, forget its CRC-64 and ETag, and recount the cache."""
    values = {"size_bytes": size_bytes, "mtime": mtime, "crc64": None, "etag": None}
    connection.execute(update(files).where(files.c.id == stem).values(**values))
    cache.recount(connection, root, citations(connection))


def scheduled(connection: Connection, class_id: str, run_id: str | None) -> None:
    """Note the run that will air the class; None if it is to get another one."""
    connection.execute(update(classes).where(classes.c.class_id == class_id).values(run_id=run_id))


def unscheduled(connection: Connection, before: float, limit: int = 1000, but: Collection[str] = ()) -> list[Airing]:
    """The next *limit* classes that are ready since *before* (epoch seconds) and have no run, by their start.

    Also those that went on air before Prefect took their run. Leaves out the classes of *but*.
    """
    such = classes.c.state.in_((AiringState.READY, AiringState.ON_AIR)) & classes.c.run_id.is_(None) & NO_REVISION
    such &= classes.c.class_id.not_in(list(but)) & (func.coalesce(classes.c.updated_at, 0) <= before)
    return where(connection, such, limit)


def unshown(connection: Connection, since: float, until: float, limit: int, but: Collection[str]) -> list[Airing]:
    """The first *limit* classes that ended between *since* and *until* (epoch seconds) before they had a run."""
    ended = classes.c.state.in_((AiringState.AIRED, AiringState.AIRED_WITH_GAPS, AiringState.BROKEN))
    vain = (classes.c.code == errors.ENDED.number) & (classes.c.placement > 1)  # promised, and moved in vain
    such = tasks.c.end_time.between(since, until) & classes.c.run_id.is_(None) & NO_REVISION & (ended | vain)
    return where(connection, such & classes.c.class_id.not_in(list(but)), limit)


def planned(connection: Connection) -> dict[str, str]:
    """The class of each run that airs a class, or is to do so, ordered by the start of the class."""
    wanted = (
        select(classes.c.run_id, classes.c.class_id)
        .select_from(_JOINED)
        .where(classes.c.state.in_([AiringState.READY, AiringState.ON_AIR]), classes.c.run_id.is_not(None))
        .order_by(tasks.c.start_time)
    )
    return {str(row.run_id): str(row.class_id) for row in connection.execute(wanted)}


_NEEDED_AT = (
    select(classes.c.video_id, func.min(tasks.c.start_time))
    .select_from(_JOINED)
    .where(in_list(classes.c.video_id), classes.c.state.in_([AiringState.WAITING, AiringState.ON_AIR]))
    .group_by(classes.c.video_id)
)


def needed_at(connection: Connection, stems: Collection[str]) -> dict[str, float]:
    """When the first class begins that waits for each of *stems* (epoch seconds); those that none waits for lack."""
    starts = ((str(stem), epoch(start)) for stem, start in connection.execute(_NEEDED_AT, bind_list(stems)))
    return {stem: start for stem, start in starts if start is not None}


def begun_by(connection: Connection, stem: str, run_id: str) -> None:
    """Note the run that downloads a rendition."""
    downloading = (files.c.id == stem) & (files.c.state == FileState.DOWNLOADING)
    connection.execute(update(files).where(downloading).values(run_id=run_id))


def tried(connection: Connection, stem: str) -> int:
    """Count one more run of a download; returns the number of its runs so far, 0 if it is wanted no more."""
    connection.execute(update(files).where(files.c.id == stem).values(tries=func.coalesce(files.c.tries, 0) + 1))
    return int(connection.execute(select(files.c.tries).where(files.c.id == stem)).scalar_one_or_none() or 0)


def untried(connection: Connection, stem: str) -> None:
    """Count a run of a download no more: its process was stopped, and the next one goes on."""
    connection.execute(update(files).where(files.c.id == stem, files.c.tries > 0).values(tries=files.c.tries - 1))


FAULTS_TOLD = msgid("recording faults")
"""The event of a class whose recording has dead air, or is too short."""

_NEEDED = HERE & (files.c.num_cite > 0)
_NOT_OVER = frozenset({AiringState.WAITING, AiringState.READY, AiringState.ON_AIR})


def unlooked(connection: Connection, now: float) -> Cached | None:
    """Of the recordings that nobody has looked through, the one whose class begins first; None if there is none."""
    rows = cache.where(connection, _NEEDED & files.c.dead_air.is_(None))
    if not rows:
        return None
    starts = {airing.stem: airing.start_time for airing in reversed(live(connection)) if airing.end_time > now}
    return min((row for row in rows if row.stem in starts), key=lambda row: starts[row.stem], default=None)


def looked(connection: Connection, row: Cached, warning: str) -> bool:
    """Note the *warning* of a look, empty for none; returns whether *row* is still the file that was looked through."""
    unchanged = (files.c.id == row.stem) & HERE & (files.c.size_bytes == row.size_bytes)
    return bool(connection.execute(update(files).where(unchanged).values(dead_air=warning)).rowcount)


def recording_warning(connection: Connection, airing: Airing) -> str:
    """The dead air in the recording of a class, if it is here, and how much too short it is; empty if all is well."""
    wanted = select(files.c.dead_air, files.c.duration_s).where(_NEEDED & (files.c.id == airing.stem))
    row = connection.execute(wanted).one_or_none()
    return "" if row is None else _said(row.dead_air, _short(airing, row.duration_s))


def faulty(connection: Connection, limit: int | None = None) -> list[tuple[Airing, str]]:
    """The first classes that are not over and whose recordings have dead air or are too short, each with the warning.

    They are ordered by their start.
    """
    return [(airing, _said(places, short)) for airing, places, short in _faulty(connection, limit)]


def untold_faults(connection: Connection, now: float) -> list[tuple[Airing, str]]:
    """The classes with dead air that have not begun, each with the warning, if no alarm has said the same yet.

    Also those on air whose recording is too short: their end may have been changed.
    """
    faulty = [fault for fault in _faulty(connection) if fault[0].end_time > now and fault[0].state in _NOT_OVER]
    warnings = [(airing, _said(places if airing.start_time > now else "", short)) for airing, places, short in faulty]
    by_class = events.named(connection, FAULTS_TOLD, [airing.class_id for airing, _ in warnings])
    alarmed = {(event.class_id, event.stem, event.detail) for story in by_class.values() for event in story}
    return [(airing, why) for airing, why in warnings if why and (airing.class_id, airing.stem, why) not in alarmed]


def _faulty(connection: Connection, limit: int | None = None) -> list[tuple[Airing, str, str]]:
    """The classes that are not over and whose recordings have a fault: the dead air, and how much is too short."""
    length = tasks.c.end_time - tasks.c.start_time
    allowed = case((SHORT_SHARE * length > SHORT_S, SHORT_SHARE * length), else_=SHORT_S)
    is_text = func.typeof(tasks.c.start_time) == "text"  # as an old program wrote it: SQL cannot count with it
    fault = (files.c.dead_air != "") | (files.c.duration_s < length - allowed) | is_text
    has = exists().where(_NEEDED, files.c.id == classes.c.video_id, fault).correlate(classes, tasks)
    wanted = selected().where(LIVE, NO_REVISION, has)
    booked = readable(connection.execute(wanted.order_by(tasks.c.start_time).limit(limit)))
    if not booked:
        return []
    renditions = select(files.c.id, files.c.dead_air, files.c.duration_s).where(in_list(files.c.id))
    rows = {row.id: row for row in connection.execute(renditions, bind_list({airing.stem for airing in booked}))}
    faults = [
        (airing, rows[airing.stem].dead_air or "", _short(airing, rows[airing.stem].duration_s)) for airing in booked
    ]
    return [fault for fault in faults if fault[1] or fault[2]]


def _short(airing: Airing, duration_s: float | None) -> str:
    length_s = airing.end_time - airing.start_time
    lacks_s = 0.0 if duration_s is None else length_s - duration_s
    is_short = lacks_s > max(SHORT_S, SHORT_SHARE * length_s)
    return Text("it ends {lacks_s:length} before its class", lacks_s=lacks_s) if is_short else ""


def _said(places: str | None, short: str) -> str:
    return joined(filter(None, (places, short)))
