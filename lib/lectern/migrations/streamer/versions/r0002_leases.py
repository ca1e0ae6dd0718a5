"""The lease of this streamer, and which placement of a class it was given."""

from sqlalchemy import Column, Float, Integer, MetaData, String, Table, text

from lectern.migrations.steps import complete

revision = "streamer_0002"
down_revision = "streamer_0001"

metadata = MetaData()

Table(
    "class_list",
    metadata,
    Column("class_id", String(250), primary_key=True),
    Column("placement", Integer, nullable=False, server_default=text("1")),
)
Table(
    "lease_list",
    metadata,
    Column("streamer", String(250), primary_key=True),
    Column("session", String(250), nullable=False),
    Column("granted_at", Float, nullable=False),
)


def upgrade() -> None:
    """Make what is missing."""
    for table in metadata.tables.values():
        complete(table)
