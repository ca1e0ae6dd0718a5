"""Ids of revisions in PostgreSQL: the longest class_id of the wire has no room for the number of a change behind it."""

from lectern.migrations.steps import lengthen

revision = "teacher_0020"
down_revision = "teacher_0019"

TABLES = ("order_list", "outbox_list", "event_list", "move_list", "cancel_list", "as_run_list")
"""The tables that keep a class, its second airing, and the revisions of both alike."""


def upgrade() -> None:
    """Lengthen the columns."""
    for table in TABLES:
        lengthen(table, "class_id")
