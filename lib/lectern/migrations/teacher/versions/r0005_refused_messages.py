"""Retries of refused messages, the number of classes that an incident has named, and unconfirmed cancels."""

from sqlalchemy import Column, Float, String

from lectern.migrations.refusals import refusals
from lectern.migrations.steps import ensure

revision = "teacher_0005"
down_revision = "teacher_0004"


def upgrade() -> None:
    """Make what is missing."""
    refusals()
    ensure(
        "cancel_list",
        Column("class_id", String(250), primary_key=True),
        Column("streamer", String(250), index=True),
        Column("cancelled_at", Float, nullable=False),
        Column("told_at", Float, nullable=False),
        Column("until", Float, nullable=False, index=True),
    )
