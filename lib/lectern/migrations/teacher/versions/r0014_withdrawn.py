"""Since when a streamer is back at the old program, which airs its classes itself."""

from sqlalchemy import Column, Float

from lectern.migrations.steps import ensure

revision = "teacher_0014"
down_revision = "teacher_0013"


def upgrade() -> None:
    """Make what is missing."""
    ensure("streamer_list", Column("withdrawn_at", Float))
