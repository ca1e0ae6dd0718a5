"""For teachers that share the rows: owners of messages, who heard a message, who is alive, who sweeps."""

from alembic import op
from sqlalchemy import Column, Float, String, Text

from lectern.migrations.steps import ZERO, ensure

revision = "teacher_0010"
down_revision = "teacher_0009"


def upgrade() -> None:
    """Create what is missing; the index of digests only in PostgreSQL, where teachers can share the rows."""
    ensure(
        "inbox_list",
        Column("owner", String(250)),
        Column("digest", String(64)),
        Column("heard_by", Text, nullable=False, server_default=""),
    )
    ensure(
        "outbox_list",
        Column("owner", String(250)),
        Column("lease_until", Float, nullable=False, server_default=ZERO),
    )
    ensure("teacher_list", Column("name", String(250), primary_key=True), Column("seen_at", Float, nullable=False))
    ensure(
        "duty_list",
        Column("name", String(60), primary_key=True),
        Column("owner", String(250), nullable=False),
        Column("lease_until", Float, nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.create_index("ix_inbox_list_digest", "inbox_list", ["digest"], if_not_exists=True)
