"""A streamer knows where the others answer, also after its restart."""

from sqlalchemy import Column, MetaData, String, Table, Text

from lectern.migrations.steps import complete

revision = "streamer_0010"
down_revision = "streamer_0009"

metadata = MetaData()
Table(
    "lease_list",
    metadata,
    Column("streamer", String(250), primary_key=True),
    Column("peers", Text),
)


def upgrade() -> None:
    """Make what is missing."""
    for table in metadata.tables.values():
        complete(table)
