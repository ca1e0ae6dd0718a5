"""What is downloaded or evicted is found without a look at all that is cached."""

from sqlalchemy import Column, MetaData, String, Table, text

from lectern.migrations.steps import complete

revision = "streamer_0004"
down_revision = "streamer_0003"

metadata = MetaData()
Table(
    "video_list",
    metadata,
    Column("id", String(250), primary_key=True),
    Column("state", String(20), server_default=text("'ready'"), index=True),
)


def upgrade() -> None:
    """Make what is missing."""
    for table in metadata.tables.values():
        complete(table)
