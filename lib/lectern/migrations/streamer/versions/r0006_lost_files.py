"""When a class lost its file, the time of a file on the disk, and the run of a download."""

from sqlalchemy import Column, Float, String

from lectern.migrations.steps import ensure

revision = "streamer_0006"
down_revision = "streamer_0005"


def upgrade() -> None:
    """Make what is missing."""
    ensure("class_list", Column("lost_at", Float))
    ensure("video_list", Column("mtime", Float), Column("run_id", String(40)))
