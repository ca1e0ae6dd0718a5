"""The teacher's tables."""

from sqlalchemy import Index, MetaData, Text, func
from sqlmodel import Field, SQLModel

from lectern.model.tables.shared import (
    AsRunColumns,
    InboxColumns,
    MessageTables,
    Named,
    OutboxColumns,
    Whole,
    index_some,
    table_of,
)
from lectern.rendition_ids import stem
from lectern.states import Backend, BookingState, RenditionState, Resolution, Right


class TeacherTable(SQLModel):
    """Keeps the teacher's tables apart from the streamer's, two of which have the same name."""

    metadata = MetaData()


class RenditionRow(TeacherTable, table=True):
    """A record at a resolution, and how far its transcoding is. The first three columns are documented."""

    __tablename__ = "video_list"
    record_id: int = Field(primary_key=True, sa_type=Whole)
    resolution: Resolution = Field(primary_key=True, sa_type=Named(Resolution, 10))
    status: str | None = Field(default=None, max_length=20)
    url: str | None = Field(default=None, sa_type=Text)
    backend: Backend | None = Field(default=None, sa_type=Named(Backend, 10))
    attempt: int = 0
    attempts_since: float = 0  # when the day of `attempts_today` began
    attempts_today: int = 0
    source_url: str | None = Field(default=None, sa_type=Text)
    deadline: float | None = Field(default=None, index=True)
    requested_at: float | None = None
    owner: str | None = Field(default=None, max_length=250)
    lease_until: float | None = None
    ecs_host: str | None = Field(default=None, max_length=250)
    ecs_job: str | None = Field(default=None, max_length=250)  # its folder on the host; empty if nothing is left there
    begun_at: float | None = None
    step: str | None = Field(default=None, max_length=20)
    reason: str | None = Field(default=None, sa_type=Text)
    updated_at: float | None = None

    @property
    def key(self) -> tuple[int, Resolution]:
        """The primary key."""
        return self.record_id, self.resolution

    @property
    def stem(self) -> str:
        """The rendition's id on a streamer."""
        return stem(self.record_id, self.resolution)

    @property
    def state(self) -> RenditionState:
        """What its status means."""
        return RenditionState(self.status or "")

    @property
    def under_way(self) -> bool:
        """Whether its result is still to come."""
        return self.status == RenditionState.TRANSCODING

    @property
    def queued(self) -> bool:
        """Whether it waits for an ECS host."""
        return self.backend is Backend.ECS and self.begun_at is None

    @property
    def unknown(self) -> str:
        """What an old program or a newer release wrote, and this release cannot read; empty if it can."""
        read: dict[str, object] = {"resolution": self.resolution, "backend": self.backend}
        return ", ".join(f"{name} {it!r}" for name, it in read.items() if type(it) is str and it)


class EcsHostRow(TeacherTable, table=True):
    """An ECS host that has been used, and how often in a row it failed."""

    __tablename__ = "ecs_host_list"
    host: str = Field(primary_key=True, max_length=250)
    failures: int = 0
    aside_until: float = 0
    reason: str | None = Field(default=None, sa_type=Text)
    updated_at: float


class OrderRow(TeacherTable, table=True):
    """A booking, the authoritative row of a class."""

    __tablename__ = "order_list"
    class_id: str = Field(primary_key=True, sa_type=Text)
    institution_id: str | None = Field(default=None, max_length=250)
    record_id: int | None = Field(default=None, index=True, sa_type=Whole)
    url_stem: str | None = Field(default=None, max_length=250)  # if no record is named
    resolution: str | None = Field(default=None, max_length=10)
    start_time: float = Field(index=True)
    end_time: float
    stream: str | None = Field(default=None, sa_type=Text, index=True)  # its push URL in normal form
    payload: str = Field(sa_type=Text)
    state: str = Field(default=BookingState.RECEIVED, max_length=20, index=True)
    code: int | None = None
    message: str | None = Field(default=None, sa_type=Text)
    sentence: str | None = Field(default=None, sa_type=Text)  # JSON of the id and the values of *message*
    streamer: str | None = Field(default=None, max_length=250)
    url: str | None = Field(default=None, sa_type=Text)
    deliveries: int = 1
    received_at: float = Field(index=True)
    updated_at: float
    answered_at: float | None = None
    warned_at: float | None = None
    placement: int = 0  # how many streamers it had
    promised_at: float | None = None  # when success was reported to the platform
    revises: str | None = Field(default=None, max_length=250, index=True)  # of a revision: its class
    booked: str | None = Field(default=None, sa_type=Text)  # of a changed class: its payload before
    backup_stream: str | None = Field(default=None, sa_type=Text, index=True)  # its push_url_backup in normal form


class StreamerRow(TeacherTable, table=True):
    """A streamer that ever held a lease, and its session; without one if it was taken. Times are epoch seconds."""

    __tablename__ = "streamer_list"
    name: str = Field(primary_key=True, max_length=250)
    session: str | None = Field(default=None, max_length=250)
    lease_s: float = 0
    granted_at: float | None = None
    lost_at: float | None = None
    withdrawn_at: float | None = None  # when it went back to the old program, which airs its classes itself

    @property
    def is_there(self) -> bool:
        """Whether it has its lease, and was heard of lately."""
        return self.session is not None and self.lost_at is None

    def granted_s_ago(self, now: float) -> float:
        """Seconds since it was given its lease; a time that lies ahead was noted before the clock was set back."""
        return abs(now - (self.granted_at or 0.0))


class MoveRow(TeacherTable, table=True):
    """A class that was taken from a streamer, which may not know it yet."""

    __tablename__ = "move_list"
    id: int | None = Field(default=None, primary_key=True, sa_type=Whole)
    class_id: str = Field(sa_type=Text, index=True)
    streamer: str = Field(max_length=250, index=True)
    placement: int
    moved_at: float
    refused: bool = False  # the streamer could not prepare it; otherwise the streamer was lost


class CancelRow(TeacherTable, table=True):
    """A cancel that still waits: for its streamer's confirmation, or (without a streamer) for its booking."""

    __tablename__ = "cancel_list"
    class_id: str = Field(primary_key=True, sa_type=Text)
    streamer: str | None = Field(default=None, max_length=250, index=True)
    cancelled_at: float
    told_at: float
    until: float = Field(index=True)  # the row is deleted after it
    deliveries: int = 1  # how many answers it gets


class TeacherRow(TeacherTable, table=True):
    """One of several teachers that share the database, and its last sign of life."""

    __tablename__ = "teacher_list"
    name: str = Field(primary_key=True, max_length=250)
    seen_at: float


class DutyRow(TeacherTable, table=True):
    """A duty that one of several teachers has for all of them, and until when."""

    __tablename__ = "duty_list"
    name: str = Field(primary_key=True, max_length=60)
    owner: str = Field(max_length=250)
    lease_until: float


class ViewerRow(TeacherTable, table=True):
    """A viewer of the page or a client of the HTTP API, perhaps of one institution; only the token's digest is kept."""

    __tablename__ = "viewer_list"
    name: str = Field(primary_key=True, max_length=250)
    institution_id: str | None = Field(default=None, max_length=250)
    digest: str = Field(max_length=64, index=True)
    made_at: float
    may: str = Field(default=Right.LOOK, max_length=60)  # rights, separated by commas

    @property
    def rights(self) -> frozenset[str]:
        """What the token is good for."""
        return frozenset(self.may.split(","))


class AsRunRow(AsRunColumns, TeacherTable, table=True):
    """A part of a class that *streamer* really sent, as it reported it."""

    streamer: str = Field(max_length=250)
    begins: float = Field(index=True)


class ClassEventRow(TeacherTable, table=True):
    """An event of a class's life as the platform gets it; ids grow in the order of the feed, *seq* by class."""

    __tablename__ = "class_event_list"
    __table_args__ = (
        Index("ux_class_event_list_seq", "class_id", "seq", unique=True),
        Index("ix_class_event_list_feed", "institution_id", "id"),  # few of many events are an institution's own
    )
    id: int | None = Field(default=None, primary_key=True, sa_type=Whole)
    class_id: str = Field(sa_type=Text)  # as on the wire; a second airing has its own
    institution_id: str | None = Field(default=None, max_length=250)
    seq: int
    at: float
    event: str = Field(max_length=20)
    body: str = Field(sa_type=Text)  # the message that is sent


class TeacherInbox(InboxColumns):
    """Messages to the teacher; if several teachers share them, also who has claimed and who has received each."""

    owner: str | None = Field(default=None, max_length=250)
    digest: str | None = Field(default=None, max_length=64)  # of its source, its entry and its body
    heard_by: str = Field(default="", sa_type=Text)  # of a channel's message: " TEACHER#BATCH " for each receiver


class TeacherOutbox(OutboxColumns):
    """Messages from the teacher; if several teachers share them, also who sends each, and until when."""

    owner: str | None = Field(default=None, max_length=250)
    lease_until: float = 0
    webhook: str | None = Field(default=None, max_length=10)  # of what is posted: due, told, given up, gone
    webhook_tries: int = 0
    webhook_at: float = 0  # not before


videos = table_of(RenditionRow)
ecs_hosts = table_of(EcsHostRow)
orders = table_of(OrderRow)
streamers = table_of(StreamerRow)
moves = table_of(MoveRow)
cancels = table_of(CancelRow)
teachers = table_of(TeacherRow)
duties = table_of(DutyRow)
viewers = table_of(ViewerRow)
as_runs = table_of(AsRunRow)
class_events = table_of(ClassEventRow)
journal = MessageTables.of(TeacherTable, TeacherInbox, TeacherOutbox)

index_some("ix_outbox_list_webhook", journal.outbox, "class_id", "webhook = 'due'")
index_some("ix_outbox_list_gone", journal.outbox, "webhook_at", "webhook = 'gone'")

IS_CLASS = func.coalesce(orders.c.revises, "") == ""
"""Selects classes without revisions. SQLite would search for `revises IS NULL` by the index of revisions,
in which all classes are alike, and read each class of the database."""
