"""The streamer's tables, beside and added to those of the old program in ``task_list.db``."""

from lectern.migrations.steps import complete, need
from lectern.model.tables.streamer import StreamerTable

revision = "streamer_0001"
down_revision = None

DOCUMENTED = {
    "task_list": ("class_id", "video_url", "push_url", "start_time", "end_time", "status"),
    "video_list": ("id", "num_cite", "site", "update_time"),
    "class_list": ("class_id", "video_id", "site"),
    "dir_info": ("dir", "size", "num"),
}


def upgrade() -> None:
    """Check that the old tables are the expected ones, then create what is missing."""
    for name, columns in DOCUMENTED.items():
        need(name, columns)
    for table in StreamerTable.metadata.tables.values():
        complete(table)
