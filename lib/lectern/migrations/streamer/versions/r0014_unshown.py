"""What no run shows yet is found however long ago it was handled."""

from lectern.migrations.recorded import index_unshown

revision = "streamer_0014"
down_revision = "streamer_0013"


def upgrade() -> None:
    """Add the index."""
    index_unshown()
