"""As-run rows, the parts of each class that were really sent: times, position in the recording, session.

A streamer keeps what its playout reports, a teacher what its streamers report.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, Select, Table, delete, insert, select

from lectern.facts import AsRun
from lectern.model.tables import streamer as at_streamer
from lectern.model.tables import teacher as at_teacher

_PART = tuple(one.name for one in fields(AsRun))


def keep(connection: Connection, class_id: str, parts: Sequence[AsRun]) -> None:
    """Write down what the playout sent of a class; rows of these parts, and of later ones, are replaced."""
    _keep(connection, at_streamer.as_runs, {"class_id": class_id}, parts)


def keep_of(connection: Connection, streamer: str, class_id: str, parts: Sequence[AsRun]) -> None:
    """Write down what *streamer* reports to have sent of a class; a second report of it changes nothing."""
    _keep(connection, at_teacher.as_runs, {"class_id": class_id, "streamer": streamer}, parts)


def of_class(connection: Connection, class_id: str) -> list[AsRun]:
    """What this streamer sent of a class, in time order."""
    return _read(connection, at_streamer.as_runs, [class_id]).get(class_id, [])


def of_classes(connection: Connection, class_ids: Sequence[str] | Select[Any]) -> dict[str, list[AsRun]]:
    """What the streamers reported of classes, each in time order; a class of which nothing was sent is left out."""
    return _read(connection, at_teacher.as_runs, class_ids)


def _keep(connection: Connection, table: Table, whose: dict[str, str], parts: Sequence[AsRun]) -> None:
    if not parts:
        return
    newer = table.c.begins >= min(one.begins for one in parts) - 0.001
    connection.execute(delete(table).where(newer, *(table.c[name] == value for name, value in whose.items())))
    connection.execute(insert(table), [{**whose, **vars(one)} for one in parts])


def _read(connection: Connection, table: Table, class_ids: Sequence[str] | Select[Any]) -> dict[str, list[AsRun]]:
    found: dict[str, list[AsRun]] = {}
    columns = [table.c[name] for name in _PART]
    wanted = select(table.c.class_id, *columns).where(table.c.class_id.in_(class_ids))
    for class_id, *part in connection.execute(wanted.order_by(table.c.begins, table.c.id)):
        found.setdefault(class_id, []).append(AsRun(*part))
    return found
