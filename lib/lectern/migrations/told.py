"""Whether people must be told directly of a sent alarm, or have been; both roles keep it."""

from alembic import op
from sqlalchemy import Column, String, text

from lectern.migrations.steps import ensure


def add_people() -> None:
    """Add the column, and an index of what is due, which finds it without reading an outbox of many days.

    For alarms that an older release has sent it is empty, so that nobody is told of them again.
    """
    ensure("outbox_list", Column("people", String(10)))
    due = text("people = 'due'")
    op.create_index(
        "ix_outbox_list_due",
        "outbox_list",
        ["people", "id"],
        if_not_exists=True,
        sqlite_where=due,
        postgresql_where=due,
    )
