"""What no run shows yet is found however long ago it was handled."""

from lectern.migrations.recorded import index_unshown

revision = "teacher_0017"
down_revision = "teacher_0016"


def upgrade() -> None:
    """Add the index."""
    index_unshown()
