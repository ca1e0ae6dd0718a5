"""Alarms of one cause are one incident."""

from sqlalchemy import MetaData

from lectern.migrations.incidents import incident_list
from lectern.migrations.steps import complete

revision = "streamer_0003"
down_revision = "streamer_0002"

metadata = MetaData()
incident_list(metadata)


def upgrade() -> None:
    """Make what is missing."""
    for table in metadata.tables.values():
        complete(table)
