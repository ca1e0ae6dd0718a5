"""Incidents, each of which joins the alarms of one cause."""

from lectern.migrations.incidents import incident_list

revision = "streamer_0003"
down_revision = "streamer_0002"


def upgrade() -> None:
    """Make what is missing."""
    incident_list()
