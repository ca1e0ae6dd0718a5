"""The stream of a class's push_url_backup, which is taken also before its second airing is placed."""

from sqlalchemy import Column, Text

from lectern.migrations.steps import ensure

revision = "teacher_0019"
down_revision = "teacher_0018"


def upgrade() -> None:
    """Add the column and its index."""
    ensure("order_list", Column("backup_stream", Text, index=True))
