"""Alarms of which people are to be told directly are due until they were, whatever becomes of the process."""

from lectern.migrations.told import add_people

revision = "streamer_0015"
down_revision = "streamer_0014"


def upgrade() -> None:
    """Add the column and its index."""
    add_people()
