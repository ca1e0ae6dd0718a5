"""A booking of the old kind names no record: its rendition has a name of its own."""

from sqlalchemy import Column, MetaData, String, Table

from lectern.migrations.steps import complete

revision = "teacher_0006"
down_revision = "teacher_0005"

metadata = MetaData()
Table(
    "order_list",
    metadata,
    Column("class_id", String(250), primary_key=True),
    Column("url_stem", String(250)),
)


def upgrade() -> None:
    """Make what is missing."""
    for table in metadata.tables.values():
        complete(table)
