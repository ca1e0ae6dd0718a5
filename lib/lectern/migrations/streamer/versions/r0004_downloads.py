"""An index that finds renditions being downloaded or evicted without reading the whole cache table."""

from sqlalchemy import Column, String, text

from lectern.migrations.steps import ensure

revision = "streamer_0004"
down_revision = "streamer_0003"


def upgrade() -> None:
    """Make what is missing."""
    ensure("video_list", Column("state", String(20), server_default=text("'ready'"), index=True))
