"""An index of the classes' starts, which finds the timetable of one day among a year's classes."""

from sqlalchemy import Column, Float

from lectern.migrations.steps import ensure

revision = "teacher_0008"
down_revision = "teacher_0007"


def upgrade() -> None:
    """Make what is missing."""
    ensure("order_list", Column("start_time", Float, nullable=False, index=True))
