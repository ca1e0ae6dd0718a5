"""Which alarms people must still be told of directly, kept across restarts of the process."""

from lectern.migrations.told import add_people

revision = "teacher_0018"
down_revision = "teacher_0017"


def upgrade() -> None:
    """Add the column and its index."""
    add_people()
