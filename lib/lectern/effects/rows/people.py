"""Alarms of the outbox that people are to be told of directly: due when they are sent, then told or given up."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, literal_column, select, update

from lectern.effects.rows.many import among, these
from lectern.effects.rows.tables.shared import Journal


class Telling(StrEnum):
    """Whether people were told of an alarm; empty for a message of which nobody is to be told."""

    DUE = "due"
    TOLD = "told"
    GIVEN_UP = "given up"


# Not a parameter: only with the word itself does SQLite know that the index ix_outbox_list_due has these rows.
_DUE: ColumnElement[str] = literal_column(f"'{Telling.DUE}'")


def note_due(connection: Connection, journal: Journal, ids: Sequence[int]) -> None:
    """People are to be told of these alarms, except of those that were due before."""
    outbox = journal.outbox
    if ids:
        new = among(outbox.c.id) & outbox.c.people.is_(None)
        connection.execute(update(outbox).where(new).values(people=Telling.DUE), these(ids))


def due(connection: Connection, journal: Journal, limit: int) -> list[tuple[int, str]]:
    """The ids and bodies of the alarms of which people are to be told now, the oldest *limit* of them."""
    outbox = journal.outbox
    wanted = select(outbox.c.id, outbox.c.body).where(outbox.c.people == _DUE).order_by(outbox.c.id).limit(limit)
    return [(int(row.id), str(row.body)) for row in connection.execute(wanted)]


def note(connection: Connection, journal: Journal, found: Mapping[int, Telling]) -> None:
    """Note for each alarm whether people were told of it, or it was given up."""
    for telling in set(found.values()):
        its: Iterable[int] = (id_ for id_, one in found.items() if one is telling)
        connection.execute(update(journal.outbox).where(among(journal.outbox.c.id)).values(people=telling), these(its))
