"""Numbers of 64 bits in PostgreSQL, as the wire allows them in a record_id, and as SQLite has always kept them."""

from lectern.migrations.steps import widen

revision = "teacher_0008"
down_revision = "teacher_0007"

WIDE = {
    "video_list": ("record_id",),
    "order_list": ("record_id",),
    "inbox_list": ("id",),
    "outbox_list": ("id",),
    "event_list": ("id",),
    "incident_list": ("id", "first_id", "last_id"),
    "move_list": ("id",),
}


def upgrade() -> None:
    """Widen what is narrow."""
    for table, columns in WIDE.items():
        widen(table, *columns)
