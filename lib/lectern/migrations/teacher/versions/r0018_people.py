"""Alarms of which people are to be told directly are due until they were, whatever becomes of the process."""

from lectern.migrations.told import add_people

revision = "teacher_0018"
down_revision = "teacher_0017"


def upgrade() -> None:
    """Add the column and its index."""
    add_people()
