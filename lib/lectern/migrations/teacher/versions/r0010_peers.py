"""Several teachers share the rows: who claimed a message, who heard it, who sends one, who is there, who sweeps."""

from alembic import op
from sqlalchemy import BigInteger, Column, Float, Integer, MetaData, String, Table, Text, text

from lectern.migrations.steps import complete

revision = "teacher_0010"
down_revision = "teacher_0009"

metadata = MetaData()
_KEY = BigInteger().with_variant(Integer, "sqlite")
Table(
    "inbox_list",
    metadata,
    Column("id", _KEY, primary_key=True),
    Column("owner", String(250)),
    Column("digest", String(64)),
    Column("heard_by", Text, nullable=False, server_default=""),
)
Table(
    "outbox_list",
    metadata,
    Column("id", _KEY, primary_key=True),
    Column("owner", String(250)),
    Column("lease_until", Float, nullable=False, server_default=text("0")),
)
Table(
    "teacher_list",
    metadata,
    Column("name", String(250), primary_key=True),
    Column("seen_at", Float, nullable=False),
)
Table(
    "duty_list",
    metadata,
    Column("name", String(60), primary_key=True),
    Column("owner", String(250), nullable=False),
    Column("lease_until", Float, nullable=False),
)


def upgrade() -> None:
    """Make what is missing; only where teachers share the rows is a message looked for by what it says."""
    for table in metadata.tables.values():
        complete(table)
    if op.get_bind().dialect.name == "postgresql":
        op.create_index("ix_inbox_list_digest", "inbox_list", ["digest"], if_not_exists=True)
