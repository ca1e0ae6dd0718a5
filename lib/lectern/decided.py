"""What a flow of either role can decide: messages to send, events to keep, and what becomes of the messages it read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar, Unpack

from lectern import outgoing
from lectern.errors import ErrorCode, Malformed
from lectern.facts import Event, Kept
from lectern.model.tables.shared import AnyTable
from lectern.outgoing import About, Kind, Outgoing
from lectern.settings import StreamerSettings, TeacherSettings

S = TypeVar("S", bound=TeacherSettings | StreamerSettings)


class Lesson(Protocol):
    """A class, or a message about it."""

    @property
    def class_id(self) -> str:
        """Its id."""

    @property
    def stem(self) -> str:
        """The id of its rendition."""


class Increment(int):
    """A number to be added to what a column has, whose sum is never below 0; citations and sums are counted so."""


@dataclass(slots=True)
class RowChange:
    """What is written of a row of *table*.

    *before* are columns as they were read, which they still have to be; None makes a new row instead of any that has
    the *key*. *after* are columns as they will be; None deletes the row.
    """

    table: AnyTable
    key: Mapping[str, object]  # empty for a new row that can replace no other
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None

    def then(self, other: "RowChange") -> "RowChange":
        """This change and a later one of the same row, as one."""
        if other.before is None or other.after is None:
            return RowChange(self.table, self.key, self.before if other.after is None else None, other.after)
        if (its := self.after) is None:  # the row is deleted
            return self
        # What a column is compared with is what was read, not what the first change makes of it.
        read = {name: value for name, value in other.before.items() if name not in its}
        after = {**its, **{name: _later(its.get(name), value) for name, value in other.after.items()}}
        return RowChange(self.table, self.key, None if self.before is None else {**read, **self.before}, after)


def _later(known: object, value: object) -> object:
    """The value of a column that first changes to *known*, then to *value*."""
    if not isinstance(value, Increment) or not isinstance(known, int):
        return value
    return Increment(known + value) if isinstance(known, Increment) else max(0, known + value)


New = tuple[AnyTable, tuple[str, ...], Sequence[tuple[object, ...]]]
"""New rows of a table, each with its values in the order of the columns' names."""


@dataclass
class Decided(Generic[S]):
    """What a flow has decided; nothing of it happens before it is committed."""

    settings: S
    now: float
    sends: list[Outgoing] = field(default_factory=list)
    notes: list[Event] = field(default_factory=list)
    rows: dict[object, RowChange] = field(default_factory=dict)  # one for each row
    done: list[int] = field(default_factory=list)  # inbox ids of the handled messages
    dead: list[tuple[int, str]] = field(default_factory=list)  # inbox ids of unreadable messages, and the fault of each
    table: list[dict[str, object]] = field(default_factory=list)  # what the UI shows after the commit
    said: Mapping[int, str] = field(default_factory=dict)  # its lines by message, as JSON
    shown: bool = False  # by the run that handles the messages

    def change(
        self,
        table: AnyTable,
        key: Mapping[str, object],
        before: Mapping[str, object] | None,
        after: Mapping[str, object] | None,
    ) -> None:
        """Change a row as `RowChange` says, after all that is changed of it already."""
        made = RowChange(table, key, before, after)
        id_ = (table, *key.values()) if key else (table, len(self.rows))
        known = self.rows.get(id_)
        self.rows[id_] = made if known is None else known.then(made)

    def new(self) -> list[New]:
        """The rows of bookings or classes that are new: in a storm, thousands."""
        return []

    def written(self) -> list[RowChange]:
        """All rows that are changed; see `new` for those that are new."""
        return list(self.rows.values())

    def raise_alarm(self, code: ErrorCode, said: str, **about: Unpack[About]) -> None:
        """Raise an alarm."""
        made = outgoing.alarm(code, said, self.now, self.settings.name, **about)
        self.sends.append(Outgoing(self.settings.alarm_channel, Kind.CHANNEL, made))

    def note(self, what: str, about: Lesson | None = None, detail: str = "", **named: str | None) -> None:
        """Record an event, for ``lectern explain``."""
        if about is not None:
            named = {"class_id": about.class_id, "stem": about.stem}
        self.notes.append(Event(what, detail=detail, **named))

    def to_dead_letters(self, kept: Kept, error: str) -> None:
        """Send a message that cannot be read to the dead letters, with the reason."""
        self.dead.append((kept.id, error))
        self.sends.append(outgoing.dead_letter(self.settings.dead_letter_stream, kept.command, kept.body, error))

    def bury(self, kept: Kept, error: Malformed) -> None:
        """Send an unreadable message to the dead letters, and show it in the run's table."""
        self.to_dead_letters(kept, error.message)
        self.table.append({"class": error.class_id or "?", "decision": "malformed", "detail": error.message})
