"""Since when a streamer is drained, so that it stays drained after its restart."""

from sqlalchemy import Column, Float, String

from lectern.migrations.steps import ensure

revision = "streamer_0012"
down_revision = "streamer_0011"


def upgrade() -> None:
    """Make what is missing."""
    ensure("drain_list", Column("streamer", String(250), primary_key=True), Column("since", Float, nullable=False))
