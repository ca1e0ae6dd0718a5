"""What both roles keep of an alarm that was sent: whether people are to be told of it directly, or were."""

from alembic import op
from sqlalchemy import Column, String, text

from lectern.migrations.steps import ensure


def add_people() -> None:
    """Add the column, and the index of what is due: of an outbox of many days, that is found without reading it all.

    It is empty for all that an older release has sent, so that nobody is told of that again.
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
