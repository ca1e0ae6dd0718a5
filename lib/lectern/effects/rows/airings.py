"""The classes of a streamer: which rendition each cites, when it is aired, what became of it."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Select, delete, func, insert, or_, select, update

from lectern.effects.rows import cache, old_times
from lectern.effects.rows.tables.streamer import classes, tasks
from lectern.errors import CallAPerson, ErrorCode
from lectern.facts import AsRun
from lectern.messages import Prepare, Report
from lectern.states import AIRING_MOVES, LIVE_AIRINGS, AiringState, check_move

AS_RUN_TOLD = 200
"""Number of parts of a class that its teacher is told: a message has a bound."""


@dataclass(frozen=True)
class Airing:
    """A class on this streamer; times are epoch seconds."""

    class_id: str
    stem: str
    state: AiringState
    push_url: str
    start_time: float
    end_time: float
    record_id: int | None
    run_id: str | None
    code: int | None = None
    message: str | None = None
    placement: int = 1
    lost: bool = False  # it was ready, and lacks its file


_COLUMNS = (
    classes.c.class_id,
    classes.c.video_id,
    classes.c.state,
    tasks.c.push_url,
    tasks.c.start_time,
    tasks.c.end_time,
    classes.c.record_id,
    classes.c.run_id,
    classes.c.code,
    classes.c.message,
    classes.c.placement,
    classes.c.lost_at,
)
_JOINED = classes.join(tasks, classes.c.class_id == tasks.c.class_id)


def selected() -> Select[Any]:
    """All classes, as `readable` reads them."""
    return select(*_COLUMNS).select_from(_JOINED)


def _airing(row) -> Airing:  # type: ignore[no-untyped-def]  # noqa: ANN001 (a row of SQLAlchemy)
    return Airing(
        row.class_id,
        row.video_id,
        AiringState(row.state or AiringState.WAITING),
        row.push_url,
        _seconds(row, row.start_time),
        _seconds(row, row.end_time),
        row.record_id,
        row.run_id,
        row.code,
        row.message,
        row.placement,
        row.lost_at is not None,
    )


def _seconds(row, value: object) -> float:  # type: ignore[no-untyped-def]  # noqa: ANN001 (a row of SQLAlchemy)
    """A time as an old program may have written it; of a class that is over it need not be readable."""
    seconds = old_times.epoch(value)
    if seconds is None and row.state in LIVE_AIRINGS:
        raise CallAPerson(f"{row.class_id}: task_list has {value!r:.60} for a time. Write epoch seconds there.")
    return seconds or 0.0


def readable(rows: Iterable[Any]) -> list[Airing]:
    """One odd row hides no other; who is to mend it hears of it by `unreadable`."""
    found: list[Airing] = []
    for row in rows:
        with suppress(CallAPerson):
            found.append(_airing(row))
    return found


def unreadable(connection: Connection) -> dict[str, str]:
    """The classes that are not over and whose rows nobody can read, each with the reason and what to do."""
    found: dict[str, str] = {}
    for row in connection.execute(selected().where(classes.c.state.in_(LIVE_AIRINGS))):
        try:
            _airing(row)
        except CallAPerson as error:
            found[row.class_id] = error.message
    return found


def by_id(connection: Connection, class_ids: Sequence[str]) -> dict[str, Airing]:
    """Those of *class_ids* that this streamer knows."""
    wanted = selected().where(classes.c.class_id.in_(class_ids))
    return {row.class_id: _airing(row) for row in connection.execute(wanted)}


def citing(connection: Connection, stem: str, state: AiringState) -> list[Airing]:
    """The classes in *state* that cite a rendition."""
    wanted = selected().where(classes.c.video_id == stem, classes.c.state == state)
    return readable(connection.execute(wanted.order_by(tasks.c.start_time)))


def live(connection: Connection) -> list[Airing]:
    """All classes that are not over, by their start.

    One that was refused because it lost its file is among them until its teacher takes it away: it was promised.
    """
    lost = (classes.c.state == AiringState.REFUSED) & classes.c.lost_at.is_not(None)
    wanted = selected().where(or_(classes.c.state.in_(LIVE_AIRINGS), lost))
    return readable(connection.execute(wanted.order_by(tasks.c.start_time)))


def due(connection: Connection, started_before: float, ends_after: float) -> list[Airing]:
    """The classes to be aired that begin before *started_before* and end after *ends_after* (epoch seconds)."""
    wanted_state = classes.c.state.in_([AiringState.READY, AiringState.ON_AIR])
    wanted = selected()
    began = or_(tasks.c.start_time <= started_before, func.typeof(tasks.c.start_time) == "text")
    goes_on = or_(tasks.c.end_time > ends_after, func.typeof(tasks.c.end_time) == "text")
    found = readable(connection.execute(wanted.where(wanted_state, began, goes_on)))
    # An old program's times can be texts, which SQL does not compare with numbers.
    return [one for one in found if one.start_time <= started_before and one.end_time > ends_after]


def on_air(connection: Connection) -> int:
    """How many classes are on air."""
    return connection.execute(select(func.count()).where(classes.c.state == AiringState.ON_AIR)).scalar_one()


def citations(connection: Connection) -> dict[str, int]:
    """How many live classes cite each rendition: what ``num_cite`` should be."""
    counted = (
        select(classes.c.video_id, func.count())
        .where(or_(classes.c.state.in_(LIVE_AIRINGS), classes.c.state.is_(None)), classes.c.released_at.is_(None))
        .group_by(classes.c.video_id)
    )
    return {str(stem): int(number) for stem, number in connection.execute(counted)}


def add(connection: Connection, wanted: Prepare, state: AiringState, site: str, now: float) -> None:
    """Insert one class and its task."""
    add_all(connection, [(wanted, state, site)], now)


def add_all(connection: Connection, new: Sequence[tuple[Prepare, AiringState, str]], now: float) -> None:
    """Insert classes (with state and site) and their tasks; the old program's columns are filled as it filled them.

    What an earlier placement left of them is forgotten.
    """
    if not new:
        return
    class_ids = [wanted.class_id for wanted, _, _ in new]
    connection.execute(delete(tasks).where(tasks.c.class_id.in_(class_ids)))
    connection.execute(delete(classes).where(classes.c.class_id.in_(class_ids)))
    connection.execute(insert(tasks), [_task(wanted, state) for wanted, state, _ in new])
    connection.execute(insert(classes), [_class(wanted, state, site, now) for wanted, state, site in new])


def _task(wanted: Prepare, state: AiringState) -> dict[str, object]:
    return {
        "class_id": wanted.class_id,
        "video_url": wanted.video_url,
        "push_url": wanted.push_url,
        "start_time": wanted.start_time,
        "end_time": wanted.end_time,
        "status": state,
        "institution_id": wanted.institution_id,
    }


def _class(wanted: Prepare, state: AiringState, site: str, now: float) -> dict[str, object]:
    return {
        "class_id": wanted.class_id,
        "video_id": wanted.stem,
        "site": site,
        "state": state,
        "record_id": wanted.record_id,
        "updated_at": now,
        "placement": wanted.placement,
    }


def place(connection: Connection, class_id: str, placement: int) -> None:
    """The class is here by a later placement."""
    connection.execute(update(classes).where(classes.c.class_id == class_id).values(placement=placement))


def over(connection: Connection, before: float) -> list[Airing]:
    """The classes that ended before *before* (epoch seconds) and still cite their rendition."""
    live = or_(classes.c.state.in_(LIVE_AIRINGS), classes.c.state.is_(None)) & classes.c.released_at.is_(None)
    ended = or_(tasks.c.end_time < before, func.typeof(tasks.c.end_time) == "text")
    found = readable(connection.execute(selected().where(live, ended)))
    return [one for one in found if one.end_time < before][:1000]


def give_up(connection: Connection, airing: Airing, now: float) -> None:
    """The class is over and broken: its citation is taken back, its state and reason stay."""
    row = (classes.c.class_id == airing.class_id) & classes.c.released_at.is_(None)
    if connection.execute(update(classes).where(row).values(released_at=now)).rowcount:
        cache.uncite(connection, airing.stem)


def move(
    connection: Connection,
    airing: Airing,
    state: AiringState,
    now: float,
    *,
    code: ErrorCode | None = None,
    message: str = "",
) -> None:
    """Move a class to *state*; where it no longer cites its rendition, its citation is taken back, once.

    Raises ForbiddenMove where the tables have no such move.
    """
    check_move(AIRING_MOVES, airing.class_id, airing.state, state)
    leaves = state not in LIVE_AIRINGS
    values: dict[str, object] = {"state": state, "updated_at": now, "message": message}
    if code is not None:
        values["code"] = code.number
    if state is AiringState.READY:
        values["lost_at"] = None
    row = classes.c.class_id == airing.class_id
    if leaves:
        released = connection.execute(
            update(classes).where(row, classes.c.released_at.is_(None)).values(released_at=now)
        )
        if released.rowcount:
            cache.uncite(connection, airing.stem)
    connection.execute(update(classes).where(row).values(**values))
    connection.execute(update(tasks).where(tasks.c.class_id == airing.class_id).values(status=state))


def report(
    cmd: Literal["prepared", "ended"],
    airing: Airing | Prepare,
    streamer: str,
    code: ErrorCode | None = None,
    message: str = "",
    parts: Sequence[AsRun] = (),
) -> Report:
    """What the teacher is told of a Prepare, or at the end of an airing, of which *parts* were sent."""
    return Report(
        cmd=cmd,
        class_id=airing.class_id,
        streamer=streamer,
        result="fail" if code else "success",
        code=code.number if code else 0,
        message=message,
        placement=airing.placement,
        as_run=[vars(one) for one in parts[-AS_RUN_TOLD:]] or None,
    )


def wait_again(connection: Connection, airing: Airing, now: float) -> None:
    """The file that a class cites is gone from the disk: it waits for a second download."""
    check_move(AIRING_MOVES, airing.class_id, airing.state, AiringState.WAITING)
    row = classes.c.class_id == airing.class_id
    values = {"state": AiringState.WAITING, "run_id": None, "updated_at": now, "lost_at": now}
    connection.execute(update(classes).where(row).values(**values))


def latest_url(connection: Connection, stem: str) -> str | None:
    """The URL of a rendition in the youngest booking that cites it: a signed URL of before may have expired."""
    wanted = (
        select(tasks.c.video_url)
        .select_from(_JOINED)
        .where(classes.c.video_id == stem, classes.c.state.in_(LIVE_AIRINGS), tasks.c.video_url.is_not(None))
        .order_by(classes.c.updated_at.desc())
        .limit(1)
    )
    found = connection.execute(wanted).scalar_one_or_none()
    return None if found is None else str(found)


def push_urls(connection: Connection) -> list[str]:
    """The push URLs of all classes that were not refused."""
    mine = classes.c.class_id == tasks.c.class_id
    taken = select(tasks.c.push_url).join(classes, mine).where(classes.c.state != AiringState.REFUSED)
    return [str(url) for url in connection.execute(taken.distinct()).scalars() if url is not None]
