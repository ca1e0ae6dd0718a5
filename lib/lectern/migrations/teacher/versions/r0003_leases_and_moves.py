"""Who holds a lease, and which classes were moved from one streamer to another."""

from sqlalchemy import Boolean, Column, Float, Integer, String, false

from lectern.migrations.steps import ZERO, ensure

revision = "teacher_0003"
down_revision = "teacher_0002"


def upgrade() -> None:
    """Make what is missing."""
    ensure(
        "order_list",
        Column("placement", Integer, nullable=False, server_default=ZERO),
        Column("promised_at", Float),
    )
    ensure(
        "streamer_list",
        Column("name", String(250), primary_key=True),
        Column("session", String(250)),
        Column("lease_s", Float, nullable=False, server_default=ZERO),
        Column("granted_at", Float),
        Column("lost_at", Float),
    )
    ensure(
        "move_list",
        Column("id", Integer, primary_key=True),
        Column("class_id", String(250), nullable=False, index=True),
        Column("streamer", String(250), nullable=False, index=True),
        Column("placement", Integer, nullable=False),
        Column("moved_at", Float, nullable=False),
        Column("refused", Boolean, nullable=False, server_default=false()),
    )
