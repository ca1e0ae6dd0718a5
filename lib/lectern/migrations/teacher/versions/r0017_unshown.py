"""An index that finds handled messages that no run shows yet, however old they are."""

from lectern.migrations.recorded import index_unshown

revision = "teacher_0017"
down_revision = "teacher_0016"


def upgrade() -> None:
    """Add the index."""
    index_unshown()
