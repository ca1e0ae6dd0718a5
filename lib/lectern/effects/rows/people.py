"""Alarms of the outbox that are passed on to people directly: due when they are sent, then told or given up."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, literal_column, select, update

from lectern.effects.rows.many import among, these
from lectern.model.tables.shared import Journal


class Telling(StrEnum):
    """Whether an alarm was passed on to people; the column is empty for messages that are not to be passed on."""

    DUE = "due"
    TOLD = "told"
    GIVEN_UP = "given up"


# A literal, because SQLite uses the index ix_outbox_list_due only if the statement contains the word itself.
_DUE: ColumnElement[str] = literal_column(f"'{Telling.DUE}'")


def note_due(connection: Connection, journal: Journal, ids: Sequence[int]) -> None:
    """Mark these alarms to be passed on to people, unless they were marked before."""
    outbox = journal.outbox
    if ids:
        new = among(outbox.c.id) & outbox.c.people.is_(None)
        connection.execute(update(outbox).where(new).values(people=Telling.DUE), these(ids))


def due(connection: Connection, journal: Journal, limit: int) -> list[tuple[int, str]]:
    """The ids and bodies of the oldest *limit* alarms that are to be passed on to people."""
    outbox = journal.outbox
    wanted = select(outbox.c.id, outbox.c.body).where(outbox.c.people == _DUE).order_by(outbox.c.id).limit(limit)
    return [(int(row.id), str(row.body)) for row in connection.execute(wanted)]


def note(connection: Connection, journal: Journal, found: Mapping[int, Telling]) -> None:
    """Note for each alarm whether it was passed on to people, or given up."""
    for telling in set(found.values()):
        its: Iterable[int] = (id_ for id_, one in found.items() if one is telling)
        connection.execute(update(journal.outbox).where(among(journal.outbox.c.id)).values(people=telling), these(its))
