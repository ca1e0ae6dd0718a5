"""Which handled messages of the inbox Prefect's UI has shown."""

from lectern.migrations.recorded import add_recorded

revision = "streamer_0009"
down_revision = "streamer_0008"


def upgrade() -> None:
    """Add the column, and mark what an older release has handled."""
    add_recorded()
