"""A handled message is shown in Prefect's UI afterwards; the inbox says which ones are shown."""

from lectern.migrations.recorded import add_recorded

revision = "streamer_0009"
down_revision = "streamer_0008"


def upgrade() -> None:
    """Add the column, and mark what an older release has handled."""
    add_recorded()
