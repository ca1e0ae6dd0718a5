"""Who holds a lease, and which classes were moved from one streamer to another."""

from sqlalchemy import Boolean, Column, Float, Integer, MetaData, String, Table, false, text

from lectern.migrations.steps import complete

revision = "teacher_0003"
down_revision = "teacher_0002"

ZERO = text("0")
metadata = MetaData()

Table(
    "order_list",
    metadata,
    Column("class_id", String(250), primary_key=True),
    Column("placement", Integer, nullable=False, server_default=ZERO),
    Column("promised_at", Float),
)
Table(
    "streamer_list",
    metadata,
    Column("name", String(250), primary_key=True),
    Column("session", String(250)),
    Column("lease_s", Float, nullable=False, server_default=ZERO),
    Column("granted_at", Float),
    Column("lost_at", Float),
)
Table(
    "move_list",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("class_id", String(250), nullable=False, index=True),
    Column("streamer", String(250), nullable=False, index=True),
    Column("placement", Integer, nullable=False),
    Column("moved_at", Float, nullable=False),
    Column("refused", Boolean, nullable=False, server_default=false()),
)


def upgrade() -> None:
    """Make what is missing."""
    for table in metadata.tables.values():
        complete(table)
