"""The viewers, who may look at the page."""

from sqlalchemy import Column, Float, String

from lectern.migrations.steps import ensure

revision = "teacher_0012"
down_revision = "teacher_0011"


def upgrade() -> None:
    """Make what is missing."""
    ensure(
        "viewer_list",
        Column("name", String(250), primary_key=True),
        Column("institution_id", String(250)),
        Column("digest", String(64), nullable=False, index=True),
        Column("made_at", Float, nullable=False),
    )
