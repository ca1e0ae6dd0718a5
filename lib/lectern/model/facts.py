"""What the databases say, as values: effects read them, decisions are made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lectern.i18n import Text
from lectern.rendition_ids import stem
from lectern.states import AiringState, Backend, BookingState, FileState, RenditionState, Resolution
from lectern.wire.fields import revised
from lectern.wire.messages import Booking

RenditionKey = tuple[int, Resolution]


@dataclass(frozen=True)
class Rendition:
    """What the teacher's database knows of a rendition; times are epoch seconds."""

    state: RenditionState
    attempt: int = 0
    attempts_today: int = 0
    attempts_since: float = 0.0
    backend: Backend | None = None


@dataclass(frozen=True)
class Slot:
    """The time (epoch seconds) in which a live class has a stream for itself."""

    class_id: str
    start_time: float
    end_time: float


@dataclass(frozen=True)
class Attempt:
    """A transcoding to be begun, by *backend*, until *deadline* (epoch seconds)."""

    record_id: int
    resolution: Resolution
    attempt: int
    attempts_today: int
    attempts_since: float
    backend: Backend
    deadline: float
    source_url: str

    @property
    def stem(self) -> str:
        """The rendition's id on a streamer."""
        return stem(self.record_id, self.resolution)

    def text(self) -> str:
        """Who makes it, and how often it was tried."""
        return Text("{backend}, attempt {attempt}", backend=self.backend, attempt=self.attempt)


@dataclass(frozen=True)
class EcsHost:
    """An ECS host: its jobs under way, its failures in a row, and until when it gets no job (epoch seconds)."""

    name: str
    jobs: int = 0
    failures: int = 0
    aside_until: float = 0.0


@dataclass(frozen=True)
class Usage:
    """Bytes and number of the renditions in a cache, used and reserved together."""

    size_bytes: int
    num: int


@dataclass(frozen=True)
class Idle:
    """An unpinned rendition, which may be evicted; queries list the least recently used first."""

    stem: str
    size_bytes: int
    queued: bool = False  # its download has not begun


@dataclass(frozen=True)
class Order:
    """A booking as the database has it."""

    class_id: str
    state: BookingState
    payload: str
    record_id: int | None
    resolution: Resolution | None
    start_time: float
    end_time: float
    code: int | None = None
    message: str | None = None
    streamer: str | None = None
    deliveries: int = 1
    url: str | None = None
    placement: int = 0
    promised_at: float | None = None
    url_stem: str | None = None
    revises: str | None = None  # of a revision: the class that it will replace
    booked: str | None = None  # of a class that was changed: the payload of its first booking
    institution_id: str | None = None

    @classmethod
    def of(cls, booking: Booking) -> "Order":
        """A new booking, about which nothing is decided yet."""
        return cls(
            booking.class_id,
            BookingState.RECEIVED,
            booking.payload,
            booking.record_id,
            booking.video_resolution,
            booking.start_time,
            booking.end_time,
            url_stem=booking.stem if booking.record_id is None else None,
            revises=revised(booking.class_id),
            institution_id=booking.institution_id,
        )

    @property
    def payloads(self) -> tuple[str, ...]:
        """The class as it was first booked, and as it is since its changes."""
        return (self.payload,) if self.booked is None else (self.booked, self.payload)

    @property
    def stem(self) -> str:
        """The rendition's id on a streamer."""
        return self.url_stem or (stem(self.record_id, self.resolution) if self.record_id is not None else "")


@dataclass(frozen=True)
class InboxMessage:
    """A message in the inbox that is not handled yet."""

    id: int
    command: str
    body: str  # a `Body`, which is read already, if it has just come
    tries: int


@dataclass(frozen=True)
class UnrecordedWork:
    """Work that was done without a run, which a run shows afterwards: a sweep, a download, a batch that failed.

    *tags*, *parameters* and *key* are those of its run, *said* is the JSON of the lines of its table; *error* says why
    it failed, if it did; *began* is epoch seconds.
    """

    flow: str
    name: str
    began: float
    message: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tags: Sequence[str] = ()
    error: str | None = None
    said: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened; *stem* is the rendition's."""

    what: str
    class_id: str | None = None
    stem: str | None = None
    detail: str = ""


@dataclass(frozen=True)
class AsRun:
    """A part of a class that was really sent; times are epoch seconds.

    *url* numbers the push URL, *session* the RTMP session; *source* is `recording` or `slate`. *position_s* is the
    place in the recording where the part begins; *sent_bytes* is None if nobody counted them. Each *streamer* numbers
    its sessions from 1; its own rows and reports do not name it.
    """

    url: int
    session: int
    source: str
    begins: float
    ends: float
    position_s: float
    sent_s: float
    sent_bytes: int | None = None
    streamer: str = ""

    def row(self) -> dict[str, Any]:
        """The part as its streamer keeps and reports it."""
        return {name: value for name, value in vars(self).items() if name != "streamer"}


@dataclass(frozen=True)
class Airing:
    """A class on this streamer; times are epoch seconds."""

    class_id: str
    stem: str
    state: AiringState
    push_url: str
    start_time: float
    end_time: float
    record_id: int | None
    run_id: str | None
    code: int | None = None
    message: str | None = None
    placement: int = 1
    lost: bool = False  # it was ready, and lacks its file
    cites: bool = True  # its rendition, which is not evicted until then
    video_url: str | None = None
    institution_id: str | None = None


@dataclass(frozen=True)
class Cached:
    """A rendition as the database has it; *site* is its path."""

    stem: str
    state: FileState
    num_cite: int
    site: str | None
    url: str | None
    size_bytes: int
    duration_s: float | None
    update_time: float = 0.0
    reason: str | None = None
    source: str | None = None
    crc64: int | None = None
    mtime: float | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class Needed:
    """A rendition that a class needs from its *start* until its end (epoch seconds)."""

    stem: str
    size_bytes: int
    until: float
    start: float = 0.0
    duration_s: float | None = None  # of the recording

    @property
    def bits_a_second(self) -> float:
        """Its average rate on air; a recording that is still to come is taken to be as long as its class."""
        length_s = self.duration_s or self.until - self.start
        return self.size_bytes * 8 / length_s if length_s > 0 else 0.0


@dataclass(frozen=True)
class Samples:
    """What a look through a whole recording found; times are seconds from its beginning.

    A picture is a key frame: its time, its lightest part (0 to 255), and whether it shows the same as the one before.
    A sound is a second: its beginning, and its loudest moment in LUFS. *loudness* is that of the whole recording, None
    if there is no sound. In the *holes* there is neither picture nor sound.
    """

    duration_s: float
    pictures: tuple[tuple[float, int, bool], ...]
    sounds: tuple[tuple[float, float], ...]
    loudness: float | None
    holes: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class RemoteFile:
    """A file as its origin promises it; a field is None if the origin does not say it. *url* is where redirects ended.

    *address* is the checked address that answered.
    """

    url: str
    size_bytes: int | None
    etag: str | None
    crc64: int | None
    address: str | None = field(default=None, compare=False)

    @property
    def promise(self) -> tuple[int | None, str | None, int | None]:
        """Size, ETag and CRC-64, which differ if another file has taken this one's place."""
        return self.size_bytes, self.etag, self.crc64
