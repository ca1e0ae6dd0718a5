"""Who may look at the page."""

from sqlalchemy import Column, Float, MetaData, String, Table

from lectern.migrations.steps import complete

revision = "teacher_0012"
down_revision = "teacher_0011"

metadata = MetaData()
Table(
    "viewer_list",
    metadata,
    Column("name", String(250), primary_key=True),
    Column("institution_id", String(250)),
    Column("digest", String(64), nullable=False, index=True),
    Column("made_at", Float, nullable=False),
)


def upgrade() -> None:
    """Make what is missing."""
    for table in metadata.tables.values():
        complete(table)
