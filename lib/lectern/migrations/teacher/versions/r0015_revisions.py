"""Changes of classes: the class that a revision is for, and the payload of the first booking."""

from sqlalchemy import Column, String, Text

from lectern.migrations.steps import ensure

revision = "teacher_0015"
down_revision = "teacher_0014"


def upgrade() -> None:
    """Add what is missing."""
    ensure("order_list", Column("revises", String(250), index=True), Column("booked", Text))
