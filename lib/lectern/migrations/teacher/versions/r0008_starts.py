"""Classes are found by their start: the timetable of a day, out of a year."""

from sqlalchemy import Column, Float, MetaData, String, Table

from lectern.migrations.steps import complete

revision = "teacher_0008"
down_revision = "teacher_0007"

metadata = MetaData()
Table(
    "order_list",
    metadata,
    Column("class_id", String(250), primary_key=True),
    Column("start_time", Float, nullable=False, index=True),
)


def upgrade() -> None:
    """Make what is missing."""
    for table in metadata.tables.values():
        complete(table)
