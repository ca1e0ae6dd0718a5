"""The streamer's tables of 2.0.0, beside and added to those of the old program in ``task_list.db``."""

from sqlalchemy import Column, Float, Index, Integer, MetaData, String, Table, Text

from lectern.migrations.messages import messages
from lectern.migrations.steps import ZERO, complete, need

revision = "streamer_0001"
down_revision = None

metadata = MetaData()

Table(
    "task_list",
    metadata,
    Column("class_id", String(250), primary_key=True),
    Column("video_url", String(2000)),
    Column("push_url", String(2000)),
    Column("start_time", Float),
    Column("end_time", Float),
    Column("status", String(20)),
    Column("institution_id", String(250)),
    Index("ix_task_list_end_time", "end_time"),
)
Table(
    "video_list",
    metadata,
    Column("id", String(250), primary_key=True),
    Column("num_cite", Integer),
    Column("site", String(250)),
    Column("update_time", Float),
    Column("state", String(20), server_default="ready"),  # an old row has its file, or reconcile finds out
    Column("size_bytes", Integer),
    Column("url", Text),
    Column("etag", String(250)),
    Column("crc64", String(20)),
    Column("duration_s", Float),
    Column("tries", Integer, nullable=False, server_default=ZERO),
    Column("owner", String(250)),
    Column("reason", Text),
    Index("ix_video_list_eviction", "num_cite", "update_time"),
)
Table(
    "class_list",
    metadata,
    Column("class_id", String(250), primary_key=True),
    Column("video_id", String(250), nullable=False, index=True),
    Column("site", String(250)),
    Column("state", String(20), index=True),  # no default: its task_list row says how far an old class is
    Column("record_id", Integer),
    Column("code", Integer),
    Column("message", Text),
    Column("run_id", String(40)),
    Column("updated_at", Float),
    Column("released_at", Float),
)
Table(
    "dir_info",
    metadata,
    Column("dir", String(250), primary_key=True),
    Column("size", Float, nullable=False),
    Column("num", Integer, nullable=False),
    Column("reserved_bytes", Integer, server_default=ZERO),
    Column("reserved_num", Integer, server_default=ZERO),
)

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
    for table in metadata.tables.values():
        complete(table)
    messages()
