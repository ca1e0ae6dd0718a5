"""The teacher's tables, beside and around the old program's ``video_list``."""

from alembic import op

from lectern.migrations.set_aside import set_aside
from lectern.migrations.steps import complete, need
from lectern.model.tables.teacher import TeacherTable

revision = "teacher_0001"
down_revision = None


def upgrade() -> None:
    """Set unusable rows of the old table aside, then create what is missing."""
    if need("video_list", ("record_id", "resolution", "status")):
        set_aside()
    for table in TeacherTable.metadata.tables.values():
        complete(table)
    if op.get_bind().dialect.name == "postgresql":  # only there can teachers share the rows
        op.create_index("ix_inbox_list_digest", "inbox_list", ["digest"], if_not_exists=True)
