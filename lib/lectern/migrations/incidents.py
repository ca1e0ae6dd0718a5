"""The table of incidents, which both roles have."""

from sqlalchemy import Column, Float, Integer, Text

from lectern.migrations.steps import ZERO, ensure


def incident_list() -> None:
    """Create the table; an incident is all alarms of one cause."""
    ensure(
        "incident_list",
        Column("id", Integer, primary_key=True),
        Column("code", Integer, nullable=False, index=True),
        Column("first_at", Float, nullable=False),
        Column("last_at", Float, nullable=False),
        Column("number", Integer, nullable=False),
        Column("classes", Text, nullable=False, server_default="[]"),
        Column("message", Text, nullable=False, server_default=""),
        Column("first_id", Integer, nullable=False, server_default=ZERO),
        Column("last_id", Integer, nullable=False, server_default=ZERO),
        Column("told_at", Float),
        Column("told_number", Integer, nullable=False, server_default=ZERO),
        Column("escalated_at", Float),
        Column("resolved_at", Float, index=True),
    )
