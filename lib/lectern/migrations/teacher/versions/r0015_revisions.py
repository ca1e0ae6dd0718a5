"""Classes that are changed: the revision that waits, and what was booked at first."""

from sqlalchemy import Column, MetaData, String, Table, Text

from lectern.migrations.steps import complete

revision = "teacher_0015"
down_revision = "teacher_0014"

metadata = MetaData()
Table(
    "order_list",
    metadata,
    Column("class_id", String(250), primary_key=True),
    Column("revises", String(250), index=True),
    Column("booked", Text),
)


def upgrade() -> None:
    """Add what is missing."""
    for table in metadata.tables.values():
        complete(table)
