"""The stream of each class, by which two that would be pushed to it at the same time are found."""

from alembic import op
from pydantic_core import from_json
from sqlalchemy import Column, Float, MetaData, String, Table, Text, select, update

from lectern import urls
from lectern.migrations.steps import complete

revision = "teacher_0007"
down_revision = "teacher_0006"

metadata = MetaData()
_orders = Table(
    "order_list",
    metadata,
    Column("class_id", String(250), primary_key=True),
    Column("stream", Text, index=True),
)
_OVER = ("refused", "cancelled", "aired", "broken")


def upgrade() -> None:
    """Make what is missing, and name the streams of the classes that are booked already."""
    for table in metadata.tables.values():
        complete(table)
    booked = Table(
        "order_list",
        MetaData(),
        Column("class_id", String(250), primary_key=True),
        Column("stream", Text),
        Column("state", String(20)),
        Column("end_time", Float),
        Column("payload", Text),
    )
    live = booked.c.stream.is_(None) & booked.c.state.not_in(_OVER)
    for class_id, payload in op.get_bind().execute(select(booked.c.class_id, booked.c.payload).where(live)).all():
        named = _stream(payload)
        if named is not None:
            op.get_bind().execute(update(booked).where(booked.c.class_id == class_id).values(stream=named))


def _stream(payload: str) -> str | None:
    """The stream of a booking; None where its push URL is none, which an older version did not notice."""
    try:
        return urls.push(from_json(payload)["push_url"]).stream
    except (ValueError, KeyError, TypeError):
        return None
