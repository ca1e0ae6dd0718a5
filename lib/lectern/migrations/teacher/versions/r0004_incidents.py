"""Incidents, each of which joins the alarms of one cause."""

from lectern.migrations.incidents import incident_list

revision = "teacher_0004"
down_revision = "teacher_0003"


def upgrade() -> None:
    """Make what is missing."""
    incident_list()
