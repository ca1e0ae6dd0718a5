"""Retries of messages that Redis refuses, and the number of classes that an incident has named."""

from lectern.migrations.refusals import refusals

revision = "streamer_0005"
down_revision = "streamer_0004"


def upgrade() -> None:
    """Make what is missing."""
    refusals()
