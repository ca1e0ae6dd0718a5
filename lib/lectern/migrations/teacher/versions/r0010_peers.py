"""Several teachers share the rows: who claimed a message, who heard it, who sends one, who is there, who sweeps."""

from alembic import op
from sqlalchemy import Column, Float, String, Text

from lectern.migrations.steps import ZERO, ensure

revision = "teacher_0010"
down_revision = "teacher_0009"


def upgrade() -> None:
    """Make what is missing; only if teachers share the rows is a message looked for by what it says."""
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
