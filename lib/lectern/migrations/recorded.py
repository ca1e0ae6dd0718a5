"""What both roles keep of a message that was handled: when Prefect's UI has shown it."""

from alembic import op
from sqlalchemy import Column, Float, Integer, MetaData, String, Table, update

from lectern.migrations.steps import complete

_metadata = MetaData()
_inbox = Table(
    "inbox_list",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("state", String(20), nullable=False, server_default="new"),
    Column("received_at", Float, nullable=False),
    Column("recorded_at", Float),
)


def add_recorded() -> None:
    """Add the column; what an older release has handled it has shown already."""
    complete(_inbox)
    shown = (_inbox.c.state != "new") & _inbox.c.recorded_at.is_(None)
    op.get_bind().execute(update(_inbox).where(shown).values(recorded_at=_inbox.c.received_at))
