"""When Prefect's UI showed a handled message; both roles keep it."""

from alembic import op
from sqlalchemy import Column, Float, text

from lectern.migrations.steps import ensure


def add_recorded() -> None:
    """Add the column, and fill it for handled messages: the older release has shown them already."""
    ensure("inbox_list", Column("recorded_at", Float))
    op.execute("UPDATE inbox_list SET recorded_at = received_at WHERE state <> 'new' AND recorded_at IS NULL")


def index_unshown() -> None:
    """Add an index of messages that no run shows yet, which finds them without reading an inbox of many days."""
    empty = text("recorded_at IS NULL")
    op.create_index(
        "ix_inbox_list_unshown",
        "inbox_list",
        ["recorded_at", "id"],
        if_not_exists=True,
        sqlite_where=empty,
        postgresql_where=empty,
    )
