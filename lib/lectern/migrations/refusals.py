"""Retries of messages that Redis refuses, and the number of classes that an incident has named; for both roles."""

from sqlalchemy import Column, Float, Integer, String, Text

from lectern.migrations.steps import ZERO, ensure


def refusals() -> None:
    """Add the columns to the tables of messages and of incidents."""
    ensure(
        "outbox_list",
        Column("tries", Integer, nullable=False, server_default=ZERO),
        Column("not_before", Float, nullable=False, server_default=ZERO),
        Column("rest", String(10)),
        Column("error", Text),
    )
    ensure("incident_list", Column("told_classes", Integer, nullable=False, server_default=ZERO))
