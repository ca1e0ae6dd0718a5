"""Which alarms people must still be told of directly, kept across restarts of the process."""

from lectern.migrations.told import add_people

revision = "streamer_0015"
down_revision = "streamer_0014"


def upgrade() -> None:
    """Add the column and its index."""
    add_people()
