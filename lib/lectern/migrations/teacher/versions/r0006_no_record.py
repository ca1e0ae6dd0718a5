"""The rendition's id for a booking of the old kind, which names no record."""

from sqlalchemy import Column, String

from lectern.migrations.steps import ensure

revision = "teacher_0006"
down_revision = "teacher_0005"


def upgrade() -> None:
    """Make what is missing."""
    ensure("order_list", Column("url_stem", String(250)))
