"""Groups alarms of one code into an incident, which is sent at once, then seldom, and when it is resolved."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, insert, select, update

from lectern import i18n
from lectern.db.outbox import Rest, Unsent, outbox
from lectern.errors import CODES, NO_RECORDING, NOT_READY_FOR_START, Severity
from lectern.i18n import Text
from lectern.model.tables.teacher import journal
from lectern.model.views import OpenAlarm
from lectern.wire.outgoing import Alarm

table = journal.incidents

NAMES_SAID = 20
"""Number of classes that the text of an alarm names; its field *classes* has all that are kept."""

NAMES_KEPT = 10_000
"""Number of classes that an incident keeps, the newest ones: each batch of alarms writes all of them again."""


class Stage(StrEnum):
    """Why a further alarm of an incident is sent."""

    MORE = "more"
    ESCALATED = "escalated"
    RESOLVED = "resolved"


GOES_ON_AS = {NOT_READY_FOR_START.number: NO_RECORDING.number, NO_RECORDING.number: NOT_READY_FOR_START.number}
"""The same trouble of a class before its start and after it: alarms of both are one incident, with the later code."""


@dataclass(frozen=True)
class AlertPolicy:
    """Seconds between two alarms of a growing incident, until it is escalated, and of silence until it is resolved.

    The trouble of the codes *goes_on* is known to last; the codes in *lasts_s* need a longer silence. That of the codes
    in *ended_s* was seen to last, and has not been seen for that time: it is resolved unless an alarm came since.
    If *shared*, other hosts have the same incidents.
    """

    group_s: float
    escalate_s: float
    quiet_s: float
    goes_on: Collection[int] = ()
    lasts_s: Mapping[int, float] = field(default_factory=dict)
    ended_s: Mapping[int, float] = field(default_factory=dict)
    shared: bool = False


def fold(connection: Connection, unsent: Sequence[Unsent], patience: AlertPolicy, now: float) -> set[int]:
    """Count each of the alarms *unsent* into its incident; returns the ids of those that are not to be sent themselves.

    The first alarm of an incident is sent as it is, until that has succeeded; with *group_s* 0 each alarm is.
    """
    alarms: dict[int, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for row in unsent:
        if not row.is_told:
            fields = json.loads(row.body)
            if "incident" not in fields:
                alarms[fields["code"]].append((row.id, fields))
    folded: set[int] = set()
    for code, of_code in alarms.items():
        first_id = _count(connection, code, of_code, now)
        folded |= {id_ for id_, _ in of_code if id_ != first_id and patience.group_s}
    return folded


def _count(connection: Connection, code: int, alarms: Sequence[tuple[int, dict[str, Any]]], now: float) -> int:
    """Count alarms of *code* into the open incident, or a new one; returns the id of the incident's first alarm."""
    row = _open(connection, code, alarms)
    known = row.last_id if row is not None else 0
    new = [alarm for alarm in alarms if alarm[0] > known]  # the others were counted before a crash
    named = json.loads(row.classes) if row is not None else []
    classes = list(dict.fromkeys([*named, *(class_id for _, fields in new for class_id in _classes(fields))]))
    forgotten = max(0, len(classes) - NAMES_KEPT)
    kept_classes = json.dumps(classes[forgotten:])
    if row is None:
        first_id, first = alarms[0]
        text = i18n.of_wire(first)
        values = {"first_at": now, "message": text, "sentence": i18n.to_json(text), "first_id": first_id}
        values |= {"number": len(new), "told_classes": len(_classes(first))}
        last = {"last_at": now, "last_id": new[-1][0], "classes": kept_classes}
        connection.execute(insert(table).values(code=code, **values, **last))
        return first_id
    if new:
        more = {"last_at": now, "number": row.number + len(new), "last_id": new[-1][0], "classes": kept_classes}
        more |= {"told_classes": max(0, row.told_classes - forgotten), "code": max(code, row.code)}
        connection.execute(update(table).where(table.c.id == row.id).values(**more))
    return int(row.first_id)


def _open(connection: Connection, code: int, alarms: Sequence[tuple[int, dict[str, Any]]]) -> Any | None:  # noqa: ANN401 (a row of SQLAlchemy)
    """The open incident that alarms of *code* belong to: one of another code if it has all their classes."""
    incidents = {row.code: row for row in connection.execute(select(table).where(table.c.resolved_at.is_(None)))}
    other = incidents.get(GOES_ON_AS.get(code, code))
    classes = {class_id for _, fields in alarms for class_id in _classes(fields)}
    is_its = other is not None and bool(classes) and classes.issubset(json.loads(other.classes))
    return incidents.get(code) or (other if is_its else None)


def _classes(fields: Mapping[str, Any]) -> list[str]:
    """The classes that an alarm is about: the one that it names, or those that wait for its rendition."""
    return [fields["class_id"]] if fields.get("class_id") else list(fields.get("classes") or ())


def told(connection: Connection, ids: Sequence[int], now: float) -> None:
    """Note that the outbox rows *ids* were sent: people know the incidents that began with one of them."""
    if ids:
        first = table.c.first_id.in_(ids) & table.c.told_at.is_(None)
        connection.execute(update(table).where(first).values(told_at=now, told_number=1))


def follow_up(connection: Connection, host: str, patience: AlertPolicy, now: float) -> list[Alarm]:
    """The alarms that are due now for open incidents: they grew, last for too long, or are resolved.

    Trouble that this host sees going on is noted if *shared*, because other hosts may not see it and would resolve it.
    """
    due: list[Alarm] = []
    for row in connection.execute(select(table).where(table.c.resolved_at.is_(None), table.c.told_at.is_not(None))):
        if patience.shared and row.code in patience.goes_on and _s(now, row.last_at) >= patience.quiet_s / 2:
            connection.execute(update(table).where(table.c.id == row.id).values(last_at=now))
        stage = _stage(row, patience, now)
        first = select(outbox.c.rest).where(outbox.c.id == row.first_id, outbox.c.sent_at.is_(None))
        rests = connection.execute(first).scalars().all() if stage is Stage.RESOLVED else []
        if stage is None or None in rests or Rest.BOTH in rests:  # only people know of it yet
            continue
        classes = json.loads(row.classes)
        changed: dict[str, object] = {"told_at": now, "told_number": row.number, "told_classes": len(classes)}
        if stage is not Stage.MORE:
            changed[f"{stage}_at"] = now
        connection.execute(update(table).where(table.c.id == row.id).values(**changed))
        due.append(_alarm(row, stage, _newest(connection, row), host, now))
    return due


def _stage(row: Any, patience: AlertPolicy, now: float) -> Stage | None:  # noqa: ANN401 (a row of SQLAlchemy)
    quiet_s = max(patience.quiet_s, patience.lasts_s.get(row.code, 0.0))
    if row.code in patience.ended_s and not patience.shared:
        quiet_s = min(quiet_s, patience.ended_s[row.code])
    goes_on = not {row.code, GOES_ON_AS.get(row.code, row.code)}.isdisjoint(patience.goes_on)
    if _s(now, row.last_at) >= quiet_s and not goes_on:
        return Stage.RESOLVED
    urgent = row.code in CODES and CODES[row.code].severity is Severity.CRITICAL
    if urgent and row.escalated_at is None and row.number > 1 and _s(now, row.first_at) >= patience.escalate_s:
        return Stage.ESCALATED
    since = _s(now, row.told_at)
    if row.number == row.told_number or since < patience.group_s or not patience.group_s:
        return None
    is_news = row.number >= 2 * row.told_number or since >= 10 * patience.group_s
    # A class in danger that no alarm has named yet is news, however many were named before.
    endangers = row.code in CODES and CODES[row.code].endangers
    return Stage.MORE if is_news or (endangers and len(json.loads(row.classes)) > row.told_classes) else None


def _s(now: float, noted_at: float) -> float:
    """Seconds between *noted_at* and *now*: a time that lies ahead was noted before the clock was set back."""
    return abs(now - noted_at)


def _alarm(row: Any, stage: Stage, newest: str, host: str, now: float) -> Alarm:  # noqa: ANN401 (of SQLAlchemy)
    """A further alarm of an incident: how often it happened, what is new, and its first and *newest* message."""
    classes = json.loads(row.classes)
    first, new = i18n.from_json(row.message, row.sentence), classes[row.told_classes :]
    parts = [_often(row, stage)]
    if len(new) > NAMES_SAID:
        names, more = ", ".join(new[:NAMES_SAID]), len(new) - NAMES_SAID
        parts.append(Text("new: {classes} and {more} more", classes=names, more=more))
    elif new:
        parts.append(Text("new: {classes}", classes=", ".join(new)))
    parts.append(Text("first message: {message}", message=first))
    parts += [Text("the newest: {message}", message=newest)] if newest and newest != first else []
    message = i18n.joined(parts)
    its = {"incident": row.id, "stage": stage, "count": row.number, "first_at": row.first_at, "last_at": row.last_at}
    runbook = CODES[row.code].runbook if row.code in CODES else ""
    said = {"code": row.code, "message": message, **i18n.wire(message), "at": now, "runbook": runbook, "host": host}
    return Alarm(**said, **its, classes=classes)


def _often(row: Any, stage: Stage) -> Text:  # noqa: ANN401 (of SQLAlchemy)
    n, since = row.number, row.first_at
    match stage:
        case Stage.MORE:
            return Text("occurred {n:,} times since {since:clock}", n=n, since=since)
        case Stage.ESCALATED:
            return Text("still going on, occurred {n:,} times since {since:clock}", n=n, since=since)
        case Stage.RESOLVED:  # only of this kind may there be just one alarm
            return Text.many(
                "resolved: occurred once, at {since:clock}",
                "resolved: occurred {n:,} times, since {since:clock}",
                n=n,
                since=since,
            )


def _newest(connection: Connection, row: Any) -> str:  # noqa: ANN401 (a row of SQLAlchemy)
    """The message of the last alarm that was counted; empty if that alarm was deleted."""
    body = connection.execute(select(outbox.c.body).where(outbox.c.id == row.last_id)).scalar()
    return "" if body is None else i18n.of_wire(json.loads(body))


def open_of(connection: Connection, code: int) -> str | None:
    """The newest message of the open incident of *code*; None if there is none."""
    return next((incident.message for incident in open_now(connection) if incident.code == code), None)


def open_now(connection: Connection, host: str = "") -> list[OpenAlarm]:
    """The incidents of this *host* that are not resolved, oldest first, each with its newest message."""
    wanted = select(table).where(table.c.resolved_at.is_(None)).order_by(table.c.first_at)
    found: list[OpenAlarm] = []
    for row in connection.execute(wanted):
        message = _newest(connection, row) or i18n.from_json(row.message, row.sentence)
        numbers = row.number, row.last_at, message, tuple(json.loads(row.classes)), row.first_at
        found.append(OpenAlarm(row.code, host, *numbers))
    return found


def about(connection: Connection, host: str, class_id: str) -> tuple[OpenAlarm, ...]:
    """The unresolved incidents that name a class."""
    return tuple(alarm for alarm in open_now(connection, host) if class_id in alarm.classes)
