"""Alarms of one cause are one incident."""

from lectern.migrations.incidents import incident_list

revision = "teacher_0004"
down_revision = "teacher_0003"


def upgrade() -> None:
    """Make what is missing."""
    incident_list()
