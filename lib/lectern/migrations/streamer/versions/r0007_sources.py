"""The source of a recording, which identifies a rendition that has no record_id."""

from sqlalchemy import Column, Text

from lectern.migrations.steps import ensure

revision = "streamer_0007"
down_revision = "streamer_0006"


def upgrade() -> None:
    """Make what is missing."""
    ensure("video_list", Column("source", Text))
