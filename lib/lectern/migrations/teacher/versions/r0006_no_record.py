"""A booking of the old kind names no record: its rendition has a name of its own."""

from sqlalchemy import Column, String

from lectern.migrations.steps import ensure

revision = "teacher_0006"
down_revision = "teacher_0005"


def upgrade() -> None:
    """Make what is missing."""
    ensure("order_list", Column("url_stem", String(250)))
