"""The teacher's tables of 2.0.0, beside and around the old program's ``video_list``."""

from sqlalchemy import Column, Float, Integer, MetaData, String, Table, Text, text

from lectern.migrations.messages import messages
from lectern.migrations.set_aside import set_aside
from lectern.migrations.steps import ZERO, complete, need

revision = "teacher_0001"
down_revision = None

metadata = MetaData()

Table(
    "video_list",
    metadata,
    Column("record_id", Integer, primary_key=True, autoincrement=False),
    Column("resolution", String(10), primary_key=True),
    Column("status", String(20)),
    Column("url", Text),
    Column("backend", String(10)),
    Column("attempt", Integer, nullable=False, server_default=ZERO),
    Column("attempts_since", Float, nullable=False, server_default=ZERO),
    Column("attempts_today", Integer, nullable=False, server_default=ZERO),
    Column("source_url", Text),
    Column("deadline", Float, index=True),
    Column("requested_at", Float),
    Column("owner", String(250)),
    Column("lease_until", Float),
    Column("reason", Text),
    Column("updated_at", Float),
)
Table(
    "order_list",
    metadata,
    Column("class_id", String(250), primary_key=True),
    Column("institution_id", String(250)),
    Column("record_id", Integer, index=True),
    Column("resolution", String(10)),
    Column("start_time", Float, nullable=False),
    Column("end_time", Float, nullable=False),
    Column("payload", Text, nullable=False),
    Column("state", String(20), nullable=False, server_default="received", index=True),
    Column("code", Integer),
    Column("message", Text),
    Column("streamer", String(250)),
    Column("url", Text),
    Column("deliveries", Integer, nullable=False, server_default=text("1")),
    Column("received_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("answered_at", Float),
    Column("warned_at", Float),
)


def upgrade() -> None:
    """Set unusable rows of the old table aside, then create what is missing."""
    if need("video_list", ("record_id", "resolution", "status")):
        set_aside()
    for table in metadata.tables.values():
        complete(table)
    messages()
