"""Where and how far a rendition is being made, and the failures of each ECS host."""

from sqlalchemy import Column, Float, Integer, String, Text

from lectern.migrations.steps import ZERO, ensure

revision = "teacher_0002"
down_revision = "teacher_0001"


def upgrade() -> None:
    """Add the columns and the table that are missing."""
    ensure(
        "video_list",
        Column("ecs_host", String(250)),
        Column("ecs_job", String(250)),
        Column("begun_at", Float),
        Column("step", String(20)),
        Column("percent", Float),
        Column("eta", Float),
    )
    ensure(
        "ecs_host_list",
        Column("host", String(250), primary_key=True),
        Column("failures", Integer, nullable=False, server_default=ZERO),
        Column("aside_until", Float, nullable=False, server_default=ZERO),
        Column("reason", Text),
        Column("updated_at", Float, nullable=False),
    )
