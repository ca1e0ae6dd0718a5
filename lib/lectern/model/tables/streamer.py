"""The streamer's tables, in the ``task_list.db`` that the old program already has."""

from sqlalchemy import Index, MetaData, Text
from sqlmodel import Field, SQLModel

from lectern.model.tables.shared import AsRunColumns, MessageTables, table_of
from lectern.states import FileState


class StreamerTable(SQLModel):
    """Keeps the streamer's tables apart from the teacher's, two of which have the same name."""

    metadata = MetaData()


class TaskRow(StreamerTable, table=True):
    """The old program's table of classes; gains ``institution_id``. Other old columns are left alone."""

    __tablename__ = "task_list"
    class_id: str = Field(primary_key=True, max_length=250)
    video_url: str | None = Field(default=None, max_length=2000)
    push_url: str | None = Field(default=None, max_length=2000)
    start_time: float | None = None
    end_time: float | None = None
    status: str | None = Field(default=None, max_length=20)
    institution_id: str | None = Field(default=None, max_length=250)


class FileRow(StreamerTable, table=True):
    """A rendition in the cache. The first four columns are documented; the id is its stem."""

    __tablename__ = "video_list"
    id: str = Field(primary_key=True, max_length=250)
    num_cite: int | None = 0
    site: str | None = Field(default=None, max_length=250)
    update_time: float | None = None
    state: str | None = Field(default=FileState.READY, max_length=20, index=True)
    size_bytes: int | None = None
    url: str | None = Field(default=None, sa_type=Text)
    source: str | None = Field(default=None, sa_type=Text)  # the recording, if no record is named
    etag: str | None = Field(default=None, max_length=250)
    crc64: str | None = Field(default=None, max_length=20)  # decimal; does not fit SQLite's signed integer
    duration_s: float | None = None
    tries: int = 0
    owner: str | None = Field(default=None, max_length=250)
    reason: str | None = Field(default=None, sa_type=Text)
    mtime: float | None = None  # of the file that was found whole
    run_id: str | None = Field(default=None, max_length=40)  # of its download
    dead_air: str | None = Field(default=None, sa_type=Text)  # empty: there is none; NULL: nobody has looked


class ClassRow(StreamerTable, table=True):
    """Which rendition a class cites, and how far its airing is. The first three columns are documented."""

    __tablename__ = "class_list"
    class_id: str = Field(primary_key=True, max_length=250)
    video_id: str = Field(max_length=250, index=True)
    site: str | None = Field(default=None, max_length=250)
    state: str | None = Field(default=None, max_length=20, index=True)  # NULL: its task_list row says how far it is
    record_id: int | None = None
    code: int | None = None
    message: str | None = Field(default=None, sa_type=Text)
    sentence: str | None = Field(default=None, sa_type=Text)  # JSON of the id and the values of *message*
    run_id: str | None = Field(default=None, max_length=40)
    updated_at: float | None = None
    released_at: float | None = None
    placement: int = 1
    lost_at: float | None = None  # since when its file has been lost
    unconfirmed_since: float | None = Field(default=None, index=True)  # of a revision: its class has its content


class LeaseRow(StreamerTable, table=True):
    """The session under which this streamer holds the lease of its classes."""

    __tablename__ = "lease_list"
    streamer: str = Field(primary_key=True, max_length=250)
    session: str = Field(max_length=250)
    granted_at: float
    peers: str | None = Field(default=None, sa_type=Text)  # JSON: the other streamers' addresses, by name


class DrainRow(StreamerTable, table=True):
    """The row of a streamer that is being drained: it gives its classes to others, and gets none."""

    __tablename__ = "drain_list"
    streamer: str = Field(primary_key=True, max_length=250)
    since: float
    by: str | None = Field(default=None, sa_type=Text)


class AsRunRow(AsRunColumns, StreamerTable, table=True):
    """A part of a class that was really sent from here."""

    ends: float = Field(index=True)


class DirRow(StreamerTable, table=True):
    """The sums of the cache: bytes and renditions used, and reserved by downloads under way."""

    __tablename__ = "dir_info"
    dir: str = Field(primary_key=True, max_length=250)
    size: float = 0
    num: int = 0
    reserved_bytes: int | None = 0
    reserved_num: int | None = 0


tasks = table_of(TaskRow)
files = table_of(FileRow)
classes = table_of(ClassRow)
dirs = table_of(DirRow)
Index("ix_task_list_end_time", tasks.c.end_time)
Index("ix_video_list_eviction", files.c.num_cite, files.c.update_time)
leases = table_of(LeaseRow)
drains = table_of(DrainRow)
as_runs = table_of(AsRunRow)
journal = MessageTables.of(StreamerTable)
