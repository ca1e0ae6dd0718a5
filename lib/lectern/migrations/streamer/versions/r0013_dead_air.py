"""The dead air of a recording, so that each recording is examined only once, also after a restart."""

from sqlalchemy import Column, Text

from lectern.migrations.steps import ensure

revision = "streamer_0013"
down_revision = "streamer_0012"


def upgrade() -> None:
    """Make what is missing."""
    ensure("video_list", Column("dead_air", Text))
