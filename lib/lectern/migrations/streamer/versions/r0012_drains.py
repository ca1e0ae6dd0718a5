"""A streamer that is drained: it gives its classes to others, also after its restart."""

from sqlalchemy import Column, Float, MetaData, String, Table

from lectern.migrations.steps import complete

revision = "streamer_0012"
down_revision = "streamer_0011"

metadata = MetaData()
Table(
    "drain_list",
    metadata,
    Column("streamer", String(250), primary_key=True),
    Column("since", Float, nullable=False),
)


def upgrade() -> None:
    """Make what is missing."""
    for table in metadata.tables.values():
        complete(table)
