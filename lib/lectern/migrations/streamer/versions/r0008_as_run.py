"""The as-run of each class: what was really sent of it."""

from sqlalchemy import Column, Float, Integer, String

from lectern.migrations.steps import ensure

revision = "streamer_0008"
down_revision = "streamer_0007"


def upgrade() -> None:
    """Make what is missing."""
    ensure(
        "as_run_list",
        Column("id", Integer, primary_key=True),
        Column("class_id", String(250), nullable=False, index=True),
        Column("url", Integer, nullable=False),
        Column("session", Integer, nullable=False),
        Column("source", String(20), nullable=False),
        Column("begins", Float, nullable=False),
        Column("ends", Float, nullable=False, index=True),
        Column("position_s", Float, nullable=False),
        Column("sent_s", Float, nullable=False),
    )
