"""What both roles keep of a message that was handled: when Prefect's UI has shown it."""

from alembic import op
from sqlalchemy import Column, Float, text

from lectern.migrations.steps import ensure


def add_recorded() -> None:
    """Add the column; what an older release has handled it has shown already."""
    ensure("inbox_list", Column("recorded_at", Float))
    op.execute("UPDATE inbox_list SET recorded_at = received_at WHERE state <> 'new' AND recorded_at IS NULL")


def index_unshown() -> None:
    """Add the index of what no run shows yet: of an inbox of many days, that is found without reading all of it."""
    empty = text("recorded_at IS NULL")
    op.create_index(
        "ix_inbox_list_unshown",
        "inbox_list",
        ["recorded_at", "id"],
        if_not_exists=True,
        sqlite_where=empty,
        postgresql_where=empty,
    )
