"""Where a rendition is being made, how far it is, and how the ECS hosts have done lately."""

from sqlalchemy import Column, Float, Integer, MetaData, String, Table, Text, text

from lectern.migrations.steps import complete

revision = "teacher_0002"
down_revision = "teacher_0001"

ZERO = text("0")
metadata = MetaData()

Table(
    "video_list",
    metadata,
    Column("record_id", Integer, primary_key=True, autoincrement=False),
    Column("resolution", String(10), primary_key=True),
    Column("ecs_host", String(250)),
    Column("ecs_job", String(250)),
    Column("begun_at", Float),
    Column("step", String(20)),
    Column("percent", Float),
    Column("eta", Float),
)
Table(
    "ecs_host_list",
    metadata,
    Column("host", String(250), primary_key=True),
    Column("failures", Integer, nullable=False, server_default=ZERO),
    Column("aside_until", Float, nullable=False, server_default=ZERO),
    Column("reason", Text),
    Column("updated_at", Float, nullable=False),
)


def upgrade() -> None:
    """Add the columns and the table that are missing."""
    for table in metadata.tables.values():
        complete(table)
