"""Columns of the tables that both roles keep: inbox, outbox, events."""

from dataclasses import dataclass

from sqlalchemy import BigInteger, Dialect, Integer, Table, Text, TypeDecorator
from sqlalchemy.types import TypeEngine
from sqlmodel import Field, SQLModel

from lectern.states import InboxState
from lectern.states import Role as Role  # noqa: PLC0414 (asked for here, too)


class Whole(TypeDecorator[int]):
    """A whole number of 64 bits on both kinds of database."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[int]:
        """The type in SQL; for SQLite it is INTEGER, because SQLite assigns keys itself only for that type."""
        return dialect.type_descriptor(Integer() if dialect.name == "sqlite" else BigInteger())


class InboxColumns(SQLModel):
    """A received message, and whether it is handled; pruned after a week."""

    id: int | None = Field(default=None, primary_key=True, sa_type=Whole)
    source: str = Field(max_length=250)
    command: str = Field(default="", max_length=20)
    body: str = Field(sa_type=Text)
    state: str = Field(default=InboxState.NEW, max_length=20, index=True)
    error: str | None = Field(default=None, sa_type=Text)
    received_at: float
    tries: int = 0
    not_before: float = 0
    recorded_at: float | None = None  # when it was shown as part of a run; empty until then


class OutboxColumns(SQLModel):
    """A message to be sent: it is committed first, then sent, with retries until that succeeds."""

    id: int | None = Field(default=None, primary_key=True, sa_type=Whole)
    target: str = Field(max_length=250)
    kind: str = Field(max_length=10)  # "channel": PUBLISH and a bounded stream of the same name; "stream": XADD
    body: str = Field(sa_type=Text)
    class_id: str | None = Field(default=None, max_length=250, index=True)
    created_at: float
    sent_at: float | None = Field(default=None, index=True)
    tries: int = 0  # how often Redis refused it
    not_before: float = 0
    rest: str | None = Field(default=None, max_length=10)  # what is to be done yet; empty for all of it
    error: str | None = Field(default=None, sa_type=Text)
    people: str | None = Field(default=None, max_length=10)  # of an alarm for ALARM_URLS: due, told or given up


class EventColumns(SQLModel):
    """What happened to a class or a rendition, when, where, why."""

    id: int | None = Field(default=None, primary_key=True, sa_type=Whole)
    at: float
    what: str = Field(max_length=60)
    class_id: str | None = Field(default=None, max_length=250, index=True)
    stem: str | None = Field(default=None, max_length=250, index=True)
    host: str = Field(max_length=250)
    detail: str = Field(default="", sa_type=Text)


class IncidentColumns(SQLModel):
    """Alarms of one code, grouped into one; *first_id* and *last_id* are rows of the outbox, *classes* a JSON list."""

    id: int | None = Field(default=None, primary_key=True, sa_type=Whole)
    code: int = Field(index=True)
    first_at: float
    last_at: float
    number: int
    classes: str = Field(default="[]", sa_type=Text)
    message: str = Field(default="", sa_type=Text)
    first_id: int = Field(default=0, sa_type=Whole)
    last_id: int = Field(default=0, sa_type=Whole)
    told_at: float | None = None
    told_number: int = 0
    told_classes: int = 0  # number of *classes*, from the first on, that people know
    escalated_at: float | None = None
    resolved_at: float | None = Field(default=None, index=True)


@dataclass(frozen=True)
class Journal:
    """The tables of messages, events and incidents of one role."""

    inbox: Table
    outbox: Table
    events: Table
    incidents: Table


def table_of(model: type[SQLModel]) -> Table:
    """The table that SQLModel made of *model*."""
    found = model.__table__  # type: ignore[attr-defined]  # SQLModel does not declare it
    assert isinstance(found, Table)
    return found
