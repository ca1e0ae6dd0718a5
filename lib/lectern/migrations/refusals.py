"""What both roles keep of a message that Redis refuses, and of the class names that an incident has told."""

from sqlalchemy import Column, Float, Integer, MetaData, String, Table, Text, text

ZERO = text("0")


def refusals(metadata: MetaData) -> None:
    """Add the columns to the tables of messages and of incidents."""
    Table(
        "outbox_list",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("tries", Integer, nullable=False, server_default=ZERO),
        Column("not_before", Float, nullable=False, server_default=ZERO),
        Column("rest", String(10)),
        Column("error", Text),
    )
    Table(
        "incident_list",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("told_classes", Integer, nullable=False, server_default=ZERO),
    )
