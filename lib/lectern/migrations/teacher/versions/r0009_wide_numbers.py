"""Numbers of 64 bits and texts of any length in PostgreSQL, as SQLite has always kept them."""

from lectern.migrations.steps import lengthen, widen

revision = "teacher_0009"
down_revision = "teacher_0008"

WIDE = {
    "video_list": ("record_id",),
    "order_list": ("record_id",),
    "inbox_list": ("id",),
    "outbox_list": ("id",),
    "event_list": ("id",),
    "incident_list": ("id", "first_id", "last_id"),
    "move_list": ("id",),
}
LONG = {
    "inbox_list": ("source",),
    "outbox_list": ("target",),
    "event_list": ("what", "host"),
}
"""Columns whose texts are joined from words and names, each of which may have the full length of a name."""


def upgrade() -> None:
    """Widen integer columns, and lengthen text columns."""
    for table, columns in WIDE.items():
        widen(table, *columns)
    for table, columns in LONG.items():
        lengthen(table, *columns)
