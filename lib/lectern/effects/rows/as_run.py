"""What was really sent of each class: from when to when, from where in the recording, in which session."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select

from lectern.effects.rows.tables.streamer import as_runs
from lectern.facts import AsRun

MOST = 1_000
"""Number of rows that are kept of a class: one whose receiver takes nothing has a new one each 5 s."""


def keep(connection: Connection, class_id: str, parts: Sequence[AsRun]) -> None:
    """Write down what was sent of a class; what is known of these parts already is replaced."""
    if not parts:
        return
    since = min(one.begins for one in parts)
    newer = as_runs.c.begins >= since - 0.001
    connection.execute(delete(as_runs).where(as_runs.c.class_id == class_id, newer))
    rows = [{"class_id": class_id, **vars(one)} for one in parts[-MOST:]]
    connection.execute(insert(as_runs), rows)


def of_class(connection: Connection, class_id: str) -> list[AsRun]:
    """What was sent of a class, in time order."""
    columns = [as_runs.c[name] for name in ("url", "session", "source", "begins", "ends", "position_s", "sent_s")]
    wanted = select(*columns).where(as_runs.c.class_id == class_id).order_by(as_runs.c.begins, as_runs.c.id)
    return [AsRun(*row) for row in connection.execute(wanted)]
