"""A rendition of no record is known by where its recording comes from."""

from sqlalchemy import Column, MetaData, String, Table, Text

from lectern.migrations.steps import complete

revision = "streamer_0007"
down_revision = "streamer_0006"

metadata = MetaData()
Table(
    "video_list",
    metadata,
    Column("id", String(250), primary_key=True),
    Column("source", Text),
)


def upgrade() -> None:
    """Make what is missing."""
    for table in metadata.tables.values():
        complete(table)
