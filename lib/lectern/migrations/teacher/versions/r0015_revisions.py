"""Classes that are changed: the revision that waits, and what was booked at first."""

from sqlalchemy import Column, String, Text

from lectern.migrations.steps import ensure

revision = "teacher_0015"
down_revision = "teacher_0014"


def upgrade() -> None:
    """Add what is missing."""
    ensure("order_list", Column("revises", String(250), index=True), Column("booked", Text))
