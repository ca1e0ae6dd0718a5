"""A class that lost its file is known as such, a file on the disk by its age, a download by its run."""

from sqlalchemy import Column, Float, MetaData, String, Table, text

from lectern.migrations.steps import complete

revision = "streamer_0006"
down_revision = "streamer_0005"

metadata = MetaData()
Table(
    "class_list",
    metadata,
    Column("class_id", String(250), primary_key=True),
    Column("lost_at", Float),
)
Table(
    "video_list",
    metadata,
    Column("id", String(250), primary_key=True),
    Column("state", String(20), server_default=text("'ready'"), index=True),
    Column("mtime", Float),
    Column("run_id", String(40)),
)


def upgrade() -> None:
    """Make what is missing."""
    for table in metadata.tables.values():
        complete(table)
