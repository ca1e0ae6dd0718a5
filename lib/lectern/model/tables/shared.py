"""Columns of the tables that both roles keep: inbox, outbox, events."""

from dataclasses import dataclass
from enum import StrEnum
from types import new_class
from typing import Any, Self

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    DefaultClause,
    Dialect,
    Index,
    Integer,
    String,
    Table,
    Text,
    TypeDecorator,
    event,
    false,
    func,
    text,
    true,
    type_coerce,
)
from sqlmodel import Field, SQLModel

from lectern import i18n
from lectern.states import InboxState

AnyTable = Table
"""A table, for decisions, which know nothing of SQLAlchemy."""


Whole = BigInteger().with_variant(Integer(), "sqlite")
"""A whole number of 64 bits on both kinds of database; SQLite assigns keys itself only if their type is INTEGER."""


class Named(TypeDecorator[str]):
    """A text that names a member of an enumeration; a name that this release does not know is read as it stands."""

    impl = String
    cache_ok = True

    def __init__(self, names: type[StrEnum], length: int) -> None:
        super().__init__(length)
        self.names = names
        self.members: dict[str, str] = {str(one): one for one in names}

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """The member that *value* names."""
        return value if value is None else self.members.get(value, value)


class Sentence(TypeDecorator[str]):
    """A sentence for people: JSON of its id and its values, or plain words."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """The sentence, with its id if it has one."""
        return value if value is None else i18n.stored(value)


def sentence(table: Table, name: str) -> ColumnElement[Any]:
    """The column *name* of *table*, which is English, with the id and the values that the row has in *sentence*."""
    return type_coerce(func.coalesce(table.c.sentence, table.c[name]), Sentence).label(name)


SQLModel.model_config["defer_build"] = True  # no row is validated, so no validators are made


class InboxColumns(SQLModel):
    """A received message, and whether it is handled; pruned after a week."""

    __tablename__ = "inbox_list"
    id: int | None = Field(default=None, primary_key=True, sa_type=Whole)
    source: str = Field(sa_type=Text)
    command: str = Field(default="", max_length=20)
    body: str = Field(sa_type=Text)
    state: str = Field(default=InboxState.NEW, max_length=20, index=True)
    error: str | None = Field(default=None, sa_type=Text)
    received_at: float
    tries: int = 0
    not_before: float = 0
    handled_at: float | None = None
    said: str | None = Field(default=None, sa_type=Text)  # what was decided, as a JSON list of lines of a run's table
    run_key: str | None = Field(default=None, max_length=250)  # shared by the messages that Prefect is asked to show
    recorded_at: float | None = None  # when it was shown as part of a run; empty until then


class OutboxColumns(SQLModel):
    """A message to be sent: it is committed first, then sent, with retries until that succeeds."""

    __tablename__ = "outbox_list"
    id: int | None = Field(default=None, primary_key=True, sa_type=Whole)
    target: str = Field(sa_type=Text)
    kind: str = Field(max_length=10)  # "channel": PUBLISH and a bounded stream of the same name; "stream": XADD
    body: str = Field(sa_type=Text)
    class_id: str | None = Field(default=None, sa_type=Text, index=True)
    created_at: float
    sent_at: float | None = Field(default=None, index=True)
    tries: int = 0  # how often Redis refused it
    not_before: float = 0
    rest: str | None = Field(default=None, max_length=10)  # what is to be done yet; empty for all of it
    error: str | None = Field(default=None, sa_type=Text)
    people: str | None = Field(default=None, max_length=10)  # of an alarm for ALARM_URLS: due, told or given up


class EventColumns(SQLModel):
    """What happened to a class or a rendition, when, where, why."""

    __tablename__ = "event_list"
    id: int | None = Field(default=None, primary_key=True, sa_type=Whole)
    at: float
    what: str = Field(sa_type=Text)
    class_id: str | None = Field(default=None, sa_type=Text, index=True)
    stem: str | None = Field(default=None, max_length=250, index=True)
    host: str = Field(sa_type=Text)
    detail: str = Field(default="", sa_type=Text)
    sentence: str | None = Field(default=None, sa_type=Text)  # JSON of the id and the values of *detail*


class IncidentColumns(SQLModel):
    """Alarms of one code, grouped into one; *first_id* and *last_id* are rows of the outbox, *classes* a JSON list."""

    __tablename__ = "incident_list"
    id: int | None = Field(default=None, primary_key=True, sa_type=Whole)
    code: int = Field(index=True)
    first_at: float
    last_at: float
    number: int
    classes: str = Field(default="[]", sa_type=Text)
    message: str = Field(default="", sa_type=Text)
    sentence: str | None = Field(default=None, sa_type=Text)  # JSON of the id and the values of *message*
    first_id: int = Field(default=0, sa_type=Whole)
    last_id: int = Field(default=0, sa_type=Whole)
    told_at: float | None = None
    told_number: int = 0
    told_classes: int = 0  # number of *classes*, from the first on, that people know
    escalated_at: float | None = None
    resolved_at: float | None = Field(default=None, index=True)


class AsRunColumns(SQLModel):
    """A part of a class that was really sent; times are epoch seconds."""

    __tablename__ = "as_run_list"
    id: int | None = Field(default=None, primary_key=True, sa_type=Whole)
    class_id: str = Field(sa_type=Text, index=True)
    url: int
    session: int
    source: str = Field(max_length=20)
    begins: float
    ends: float
    position_s: float
    sent_s: float
    sent_bytes: int | None = Field(default=None, sa_type=Whole)


@dataclass(frozen=True)
class MessageTables:
    """The tables of messages, events and incidents of one role.

    Statements are made of the teacher's: they serve a streamer's, too, which only lack some of their columns.
    """

    inbox: Table
    outbox: Table
    events: Table
    incidents: Table

    @classmethod
    def of(
        cls, role: type[SQLModel], inbox: type[SQLModel] = InboxColumns, outbox: type[SQLModel] = OutboxColumns
    ) -> Self:
        """Make the tables among those of *role*, whose *inbox* and *outbox* may have columns of their own."""
        models = (inbox, outbox, EventColumns, IncidentColumns)
        rows = [new_class(f"{role.__name__}{model.__name__}", (model, role), {"table": True}) for model in models]
        return cls(*map(table_of, rows))

    def __post_init__(self) -> None:
        """Add the indexes of what waits, which find it without reading a table of many days."""
        index_some("ix_inbox_list_unshown", self.inbox, "run_key", "recorded_at IS NULL")
        index_some("ix_outbox_list_due", self.outbox, "people", "people = 'due'")


def index_some(name: str, table: Table, column: str, which: str) -> None:
    """Add an index of the rows for which the SQL *which* is true.

    What depends on the database is said only when it is made: else each start of a program loads PostgreSQL's dialect.
    """

    def choose(index: Index, connection: Connection, **_: object) -> None:
        index.dialect_options[connection.dialect.name]["where"] = text(which)

    event.listen(Index(name, table.c[column], table.c.id), "before_create", choose)


def table_of(model: type[SQLModel]) -> Table:
    """The table that SQLModel made of *model*; its defaults are the database's, too, for rows of other programs."""
    found = model.__table__  # type: ignore[attr-defined]  # SQLModel does not declare it
    assert isinstance(found, Table)
    for column in found.columns:
        if column.default is not None and column.server_default is None:
            column.server_default = DefaultClause(_in_sql(column.default.arg))
            column.server_default._set_parent(column)
    return found


def _in_sql(value: object) -> Any:  # noqa: ANN401 (an expression of SQLAlchemy)
    if isinstance(value, bool):
        return true() if value else false()
    return text(str(value)) if isinstance(value, int | float) else str(value)
