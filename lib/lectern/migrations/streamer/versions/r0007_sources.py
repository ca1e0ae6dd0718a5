"""A rendition of no record is known by where its recording comes from."""

from sqlalchemy import Column, Text

from lectern.migrations.steps import ensure

revision = "streamer_0007"
down_revision = "streamer_0006"


def upgrade() -> None:
    """Make what is missing."""
    ensure("video_list", Column("source", Text))
