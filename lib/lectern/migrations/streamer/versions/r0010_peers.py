"""The addresses of the other streamers, which a streamer must know even after its restart."""

from sqlalchemy import Column, Text

from lectern.migrations.steps import ensure

revision = "streamer_0010"
down_revision = "streamer_0009"


def upgrade() -> None:
    """Make what is missing."""
    ensure("lease_list", Column("peers", Text))
