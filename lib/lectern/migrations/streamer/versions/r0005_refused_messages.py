"""Messages that Redis refuses are tried again by themselves; an incident knows which classes it has named."""

from lectern.migrations.refusals import refusals

revision = "streamer_0005"
down_revision = "streamer_0004"


def upgrade() -> None:
    """Make what is missing."""
    refusals()
