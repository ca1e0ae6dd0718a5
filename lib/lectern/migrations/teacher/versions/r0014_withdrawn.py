"""Streamers that were taken back to the old program, which airs their classes itself."""

from sqlalchemy import Column, Float, MetaData, String, Table

from lectern.migrations.steps import complete

revision = "teacher_0014"
down_revision = "teacher_0013"

metadata = MetaData()
Table(
    "streamer_list",
    metadata,
    Column("name", String(250), primary_key=True),
    Column("withdrawn_at", Float),
)


def upgrade() -> None:
    """Make what is missing."""
    for table in metadata.tables.values():
        complete(table)
