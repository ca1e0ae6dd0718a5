"""What both roles keep of a message that was handled: when Prefect's UI has shown it."""

from alembic import op
from sqlalchemy import Column, Float

from lectern.migrations.steps import ensure


def add_recorded() -> None:
    """Add the column; what an older release has handled it has shown already."""
    ensure("inbox_list", Column("recorded_at", Float))
    op.execute("UPDATE inbox_list SET recorded_at = received_at WHERE state <> 'new' AND recorded_at IS NULL")
