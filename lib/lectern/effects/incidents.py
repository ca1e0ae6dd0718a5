"""Alarms of one code within a time are one incident: told at once, then seldom, and at its end."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, insert, select, update

from lectern.effects.outbox import Unsent
from lectern.effects.tables.shared import Journal
from lectern.errors import CODES, Severity
from lectern.messages import Alarm

CLASSES_KEPT = 50
"""So many class_ids of an incident are named."""


class Stage(StrEnum):
    """Why an incident is told once more."""

    MORE = "more"
    ESCALATED = "escalated"
    RESOLVED = "resolved"


@dataclass(frozen=True)
class Patience:
    """Seconds: between two tellings of a growing incident, until it is escalated, and of silence until its end."""

    group_s: float
    escalate_s: float
    quiet_s: float


def fold(
    connection: Connection, journal: Journal, unsent: Sequence[Unsent], channel: str, patience: Patience, now: float
) -> set[int]:
    """Count each alarm among *unsent* into its incident; returns the ids of those that are not to be sent themselves.

    The first alarm of an incident is sent as it is, until that has been done; with *group_s* 0 each one is.
    """
    folded: set[int] = set()
    for row in unsent:
        if row.target == channel:
            fields = json.loads(row.body)
            if "incident" not in fields and _counted(connection, journal, row.id, fields, now) and patience.group_s:
                folded.add(row.id)
    return folded


def _counted(connection: Connection, journal: Journal, id_: int, fields: dict[str, Any], now: float) -> bool:
    """Count one alarm; returns whether another one speaks for it."""
    table = journal.incidents
    is_open = (table.c.code == fields["code"]) & table.c.resolved_at.is_(None)
    row = connection.execute(select(table).where(is_open)).one_or_none()
    class_id = fields.get("class_id")
    if row is None:
        values = {"first_at": now, "number": 1, "message": fields["message"], "first_id": id_}
        classes = json.dumps([class_id] if class_id else [])
        connection.execute(
            insert(table).values(code=fields["code"], last_at=now, last_id=id_, classes=classes, **values)
        )
        return False
    if id_ > row.last_id:  # else it was counted before a crash
        classes = json.loads(row.classes)
        if class_id and class_id not in classes and len(classes) < CLASSES_KEPT:
            classes.append(class_id)
        more = {"last_at": now, "number": row.number + 1, "last_id": id_, "classes": json.dumps(classes)}
        connection.execute(update(table).where(table.c.id == row.id).values(**more))
    return bool(id_ != row.first_id)


def told(connection: Connection, journal: Journal, ids: Sequence[int], now: float) -> None:
    """The outbox's rows *ids* were sent; incidents that began with one of them are known to people."""
    table = journal.incidents
    first = table.c.first_id.in_(ids) & table.c.told_at.is_(None)
    connection.execute(update(table).where(first).values(told_at=now, told_number=1))


def follow_up(connection: Connection, journal: Journal, host: str, patience: Patience, now: float) -> list[Alarm]:
    """What is to be told of the open incidents now: they grew, go on for too long, or are over."""
    table = journal.incidents
    found: list[Alarm] = []
    for row in connection.execute(select(table).where(table.c.resolved_at.is_(None), table.c.told_at.is_not(None))):
        stage = _stage(row, patience, now)
        if stage is None:
            continue
        changed: dict[str, object] = {"told_at": now, "told_number": row.number}
        if stage is not Stage.MORE:
            changed[f"{stage}_at"] = now
        connection.execute(update(table).where(table.c.id == row.id).values(**changed))
        found.append(_alarm(row, stage, host, now))
    return found


def _stage(row: Any, patience: Patience, now: float) -> Stage | None:  # noqa: ANN401 (a row of SQLAlchemy)
    if now - row.last_at >= patience.quiet_s:
        return Stage.RESOLVED
    urgent = row.code in CODES and CODES[row.code].severity is Severity.CRITICAL
    if urgent and row.escalated_at is None and row.number > 1 and now - row.first_at >= patience.escalate_s:
        return Stage.ESCALATED
    since = now - row.told_at
    grown = row.number >= 2 * row.told_number and since >= patience.group_s
    return Stage.MORE if grown or (row.number > row.told_number and since >= 10 * patience.group_s) else None


def _alarm(row: Any, stage: Stage, host: str, now: float) -> Alarm:  # noqa: ANN401 (a row of SQLAlchemy)
    since = time.strftime("%H:%M:%S", time.localtime(row.first_at))
    classes = json.loads(row.classes)
    words = {
        Stage.MORE: f"{row.number} times since {since}",
        Stage.ESCALATED: f"still going on, {row.number} times since {since}",
        Stage.RESOLVED: f"over: {row.number} times since {since}, none for a while",
    }
    return Alarm(
        code=row.code,
        message=f"{words[stage]}; it began with: {row.message}",
        at=now,
        runbook=CODES[row.code].runbook if row.code in CODES else "",
        host=host,
        incident=row.id,
        stage=stage,
        count=row.number,
        first_at=row.first_at,
        last_at=row.last_at,
        classes=classes,
    )


def open_now(connection: Connection, journal: Journal) -> list[dict[str, Any]]:
    """The incidents that are not over, oldest first."""
    table = journal.incidents
    wanted = select(table).where(table.c.resolved_at.is_(None)).order_by(table.c.first_at)
    return [
        {
            "code": row.code,
            "count": row.number,
            "first_at": row.first_at,
            "last_at": row.last_at,
            "message": row.message,
            "classes": json.loads(row.classes),
        }
        for row in connection.execute(wanted)
    ]
