"""An index that finds handled messages that no run shows yet, however old they are."""

from lectern.migrations.recorded import index_unshown

revision = "streamer_0014"
down_revision = "streamer_0013"


def upgrade() -> None:
    """Add the index."""
    index_unshown()
