"""The lease of this streamer, and the number of a class's placement here."""

from sqlalchemy import Column, Float, Integer, String, text

from lectern.migrations.steps import ensure

revision = "streamer_0002"
down_revision = "streamer_0001"


def upgrade() -> None:
    """Make what is missing."""
    ensure("class_list", Column("placement", Integer, nullable=False, server_default=text("1")))
    ensure(
        "lease_list",
        Column("streamer", String(250), primary_key=True),
        Column("session", String(250), nullable=False),
        Column("granted_at", Float, nullable=False),
    )
