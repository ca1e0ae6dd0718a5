"""A recording is looked through once for black pictures and silence, also after a restart."""

from sqlalchemy import Column, MetaData, String, Table, Text

from lectern.migrations.steps import complete

revision = "streamer_0013"
down_revision = "streamer_0012"

metadata = MetaData()
Table(
    "video_list",
    metadata,
    Column("id", String(250), primary_key=True),
    Column("dead_air", Text),
)


def upgrade() -> None:
    """Make what is missing."""
    for table in metadata.tables.values():
        complete(table)
