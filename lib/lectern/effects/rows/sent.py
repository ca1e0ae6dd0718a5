"""Reads from a streamer's events what is sent of classes during their time, and their last check before it."""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, func, select

from lectern.effects.rows import events
from lectern.facts import Airing
from lectern.model.tables.streamer import journal
from lectern.states import AiringState
from lectern.told import Check, Past, Sending

ON_AIR = "on air"
BROKE_OFF = ("push broke off", "push refused", "nothing to send")
SLATE, RECORDING = "slate", "recording again"
CHECKED, NOT_READY = "checked: ready", "checked: not ready"
_MOST, _MOST_OF_ONE = 5_000, 500
"""Most events that one query reads, the newest ones: each class has its share, and at least so many of its own. A push
host that takes a class and cuts it again for an hour makes some thousands."""


def sendings(connection: Connection, due: Sequence[Airing]) -> dict[str, Sending]:
    """The state of sending of each class of *due*; a class for which nothing was tried yet is left out."""
    told: dict[str, list[Past]] = {one.class_id: [] for one in due}
    for event in _latest(connection, list(told), (ON_AIR, SLATE, RECORDING, *BROKE_OFF)):
        told[event.class_id or ""].append(event)
    return {one.class_id: _sending(one.state, told[one.class_id]) for one in due if told[one.class_id]}


def _sending(state: AiringState, newest_first: Sequence[Past]) -> Sending:
    tries = [one for one in newest_first if one.what == ON_AIR or one.what in BROKE_OFF]
    begins = [one for one in tries if one.what == ON_AIR]
    broken = [one for one in tries if one.what != ON_AIR]
    failures = next((number for number, one in enumerate(tries) if one.what == ON_AIR), len(tries))
    shown = next((one.what for one in newest_first if one.what in {SLATE, RECORDING}), RECORDING)
    is_on_air = state is AiringState.ON_AIR and bool(tries) and failures == 0
    return Sending(
        on_air=is_on_air,
        since=begins[-1].at if begins else None,
        failures=0 if is_on_air else failures,
        cuts=max(len(begins) - 1, 0),
        why=broken[0].detail if broken else None,
        why_at=broken[0].at if broken else None,
        slate=shown == SLATE,
    )


def story(connection: Connection, class_id: str, whats: Iterable[str]) -> list[Past]:
    """The events of a class that are among *whats*, in time order."""
    return _latest(connection, [class_id], list(whats))[::-1]


def checks(connection: Connection, class_ids: Iterable[str]) -> Mapping[str, Check]:
    """The findings of the last check of each class."""
    found: dict[str, Check] = {}
    for event in _latest(connection, list(class_ids), (CHECKED, NOT_READY)):
        reds = (event.detail or "no reason was kept") if event.what == NOT_READY else ""
        found.setdefault(event.class_id or "", Check(event.at, reds))
    return found


def _latest(connection: Connection, class_ids: Sequence[str], whats: Sequence[str]) -> list[Past]:
    table = journal.events
    if not class_ids:
        return []
    mine = table.c.class_id.in_(class_ids) & table.c.what.in_(whats)
    place = func.row_number().over(partition_by=table.c.class_id, order_by=table.c.id.desc())
    its = select(table.c.id, place.label("place")).where(mine).subquery()
    newest = its.c.place <= max(_MOST // len(class_ids), _MOST_OF_ONE)
    wanted = select(*events.columns(journal)).join(its, its.c.id == table.c.id).where(newest)
    return [Past(*row) for row in connection.execute(wanted.order_by(table.c.id.desc()))]
