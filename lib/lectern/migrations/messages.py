"""The tables of messages and events, which both roles have from their first revision."""

from sqlalchemy import Column, Float, Integer, String, Text

from lectern.migrations.steps import ZERO, ensure


def messages() -> None:
    """Create the tables as the first revision did; later columns are in later revisions."""
    ensure(
        "inbox_list",
        Column("id", Integer, primary_key=True),
        Column("source", String(250), nullable=False),
        Column("command", String(20), nullable=False, server_default=""),
        Column("body", Text, nullable=False),
        Column("state", String(20), nullable=False, server_default="new", index=True),
        Column("error", Text),
        Column("received_at", Float, nullable=False),
        Column("tries", Integer, nullable=False, server_default=ZERO),
        Column("not_before", Float, nullable=False, server_default=ZERO),
    )
    ensure(
        "outbox_list",
        Column("id", Integer, primary_key=True),
        Column("target", String(250), nullable=False),
        Column("kind", String(10), nullable=False),
        Column("body", Text, nullable=False),
        Column("class_id", String(250), index=True),
        Column("created_at", Float, nullable=False),
        Column("sent_at", Float, index=True),
    )
    ensure(
        "event_list",
        Column("id", Integer, primary_key=True),
        Column("at", Float, nullable=False),
        Column("what", String(60), nullable=False),
        Column("class_id", String(250), index=True),
        Column("stem", String(250), index=True),
        Column("host", String(250), nullable=False),
        Column("detail", Text, nullable=False, server_default=""),
    )
